"""`simulate`: a workload to try things with."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates

from service.catalog import Context, event_type
from service.errors import Cancelled, Reject
from service.settings import Settings

_LONGEST_MS = 86_400_000
_CANCEL_LOOK_SECONDS = 0.25


class SimulatePayload(Schema):
    """All optional; an empty payload completes at once."""

    duration_ms = fields.Integer(
        strict=True,
        validate=validate.Range(0, _LONGEST_MS),
        metadata={"description": "how long to wait, in milliseconds"},
    )
    cpu_ms = fields.Integer(
        strict=True,
        validate=validate.Range(0, _LONGEST_MS),
        metadata={"description": "how long to burn the CPU, in milliseconds"},
    )
    fail_times = fields.Integer(
        strict=True,
        validate=validate.Range(0, 1_000),
        metadata={"description": "this many attempts fail, then one succeeds"},
    )
    outcome = fields.String(
        validate=validate.OneOf(["success", "error", "reject", "hang", "crash"]),
        metadata={"description": "how it ends; hang and crash only with SIMULATE_FAULTS=1"},
    )
    result = fields.Raw(
        allow_none=True, metadata={"description": 'returned as is; default {"ok": true}'}
    )

    @validates("outcome")
    def _faults_are_enabled(self, value: str, **_: Any) -> None:
        if value in ("hang", "crash") and not Settings.from_env().simulate_faults:
            raise ValidationError("only where SIMULATE_FAULTS=1")


@event_type("simulate", schema=SimulatePayload)
async def simulate(payload: dict[str, Any], context: Context) -> Any:
    """Waits, burns, then ends as the payload says."""
    await _pass_time(payload.get("duration_ms", 0) / 1000, context)
    if cpu_ms := payload.get("cpu_ms", 0):
        await asyncio.to_thread(_burn, cpu_ms / 1000, context)
    if context.attempt <= payload.get("fail_times", 0):
        raise RuntimeError(f"attempt {context.attempt} fails as asked")
    match payload.get("outcome", "success"):
        case "error":
            raise RuntimeError("fails as asked")
        case "reject":
            raise Reject("rejected as asked")
        case "hang":
            await _pass_time(_LONGEST_MS, context)
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
    return payload.get("result", {"ok": True})


async def _pass_time(seconds: float, context: Context) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, _CANCEL_LOOK_SECONDS))
        if context.is_cancelled():
            raise Cancelled


def _burn(seconds: float, context: Context) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end and context.remaining_ms() > 0:
        if context.is_cancelled():
            raise Cancelled
        sum(i * i for i in range(1_000))
