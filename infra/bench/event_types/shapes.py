"""Types of every shape of work: plain functions and coroutines that wait, fail, or do nothing.

`bench.plain` and `bench.coroutine` wait `ms` milliseconds and fail in their first `fails` attempts.
`bench.queue_0` to `bench.queue_99` do nothing, each in a queue of its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from service.backoff import Backoff
from service.catalog import Context, event_type

_SOON = Backoff(first_ms=300, cap_ms=1_000)
QUEUES = 100


@event_type("bench.plain", backoff=_SOON)
def plain(payload: dict[str, Any], context: Context) -> None:
    if ms := payload.get("ms"):
        time.sleep(ms / 1000)
    _end(payload, context)


@event_type("bench.coroutine", backoff=_SOON)
async def coroutine(payload: dict[str, Any], context: Context) -> None:
    if ms := payload.get("ms"):
        await asyncio.sleep(ms / 1000)
    _end(payload, context)


def _end(payload: dict[str, Any], context: Context) -> None:
    if context.attempt <= payload.get("fails", 0):
        raise RuntimeError("as asked")


async def _nothing(_payload: dict[str, Any], _context: Context) -> None:
    """Nothing to do."""


for _number in range(QUEUES):
    event_type(f"bench.queue_{_number}", queue=f"bench_{_number}")(_nothing)
