"""Event types for tests, loaded through EVENT_TYPE_MODULES: every effect goes into a journal file
outside of the system, whatever becomes of the process that had it.

Payload: `n` (the client's own mark), `duration_ms`, `fail_times` (so many attempts fail), `reject`,
`die` (kills its process), `die_after_ms`, `stuck` (sleeps in C beyond its limit), `spin`, `eat_mb`,
`pad` (any text). The result is a token that no other run has.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from service.backoff import Backoff
from service.catalog import Context, event_type
from service.errors import Cancelled, Reject

_FILE = os.environ.get("JOURNAL_FILE", os.devnull)
_QUICKLY = Backoff(first_ms=50, cap_ms=400)
_TICK_SECONDS = 0.05


def write(what: str, context: Context, token: str) -> None:
    """One line in one write: lines of several processes never mix, and none is ever half."""
    line = json.dumps(
        {
            "what": what,
            "event": context.id,
            "attempt": context.attempt,
            "token": token,
            "pid": os.getpid(),
            "at": time.monotonic(),
        }
    )
    descriptor = os.open(_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


@event_type("journal.sync", backoff=_QUICKLY, time_limit_ms=30_000)
def journal_sync(payload: dict[str, Any], context: Context) -> Any:
    token = secrets.token_hex(8)
    write("start", context, token)
    _misbehave(payload)
    end = time.monotonic() + payload.get("duration_ms", 0) / 1000
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _TICK_SECONDS))
        _stop_if_cancelled(context, token)
    return _ended(payload, context, token)


@event_type("journal.async", backoff=_QUICKLY, time_limit_ms=30_000)
async def journal_async(payload: dict[str, Any], context: Context) -> Any:
    token = secrets.token_hex(8)
    write("start", context, token)
    _misbehave(payload)
    end = time.monotonic() + payload.get("duration_ms", 0) / 1000
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, _TICK_SECONDS))
        _stop_if_cancelled(context, token)
    return _ended(payload, context, token)


if os.environ.get("TEST_NEW_TYPE"):
    # A type that only a newer version has.
    event_type("journal.new", backoff=_QUICKLY)(journal_sync)


def _limit_memory() -> None:
    """Gives this process so much more address space and no more, where the environment says so."""
    if more_kib := int(os.environ.get("TEST_MORE_MEMORY_KIB", "0")):
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + more_kib * 1024, resource.RLIM_INFINITY))


def _misbehave(payload: dict[str, Any]) -> None:
    if "die_after_ms" in payload:
        time.sleep(payload["die_after_ms"] / 1000)
    if payload.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if payload.get("eat_mb"):
        _limit_memory()
        eaten = [os.urandom(1_048_576) for _ in range(payload["eat_mb"])]
        del eaten
    if payload.get("stuck"):
        time.sleep(3_600)
    while payload.get("spin"):
        pass


def _stop_if_cancelled(context: Context, token: str) -> None:
    if context.is_cancelled():
        write("cancel", context, token)
        raise Cancelled


def _ended(payload: dict[str, Any], context: Context, token: str) -> Any:
    if context.attempt <= payload.get("fail_times", 0):
        write("fail", context, token)
        raise RuntimeError(f"attempt {context.attempt} fails as asked")
    if payload.get("reject"):
        write("fail", context, token)
        raise Reject("rejected as asked")
    write("end", context, token)
    return {"token": token}
