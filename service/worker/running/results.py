"""What the end of a handler means: its result or its exception as an `AttemptResult`."""

from __future__ import annotations

import logging
import re
import time
from datetime import datetime
from typing import Any

import dramatiq
import orjson

from service.errors import Cancelled, Reject, RetryLater
from service.job import AttemptResult, Outcome
from service.worker.holding.job import InFlightJob
from service.worker.running.plain_json import encoded

_log = logging.getLogger(__name__)
MAX_RESULT_BYTES = 1_048_576
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of a NUL in JSON; after an odd backslash it is only text that looks like it."""


def completed(result: Any, at: datetime, started_at: datetime) -> AttemptResult:
    """Of a handler that returned this."""
    try:
        text = encoded(result)
    except TypeError as error:
        return AttemptResult(
            Outcome.REJECTED, at, message=f"the result is not JSON: {error}", started_at=started_at
        )
    if len(text) > MAX_RESULT_BYTES or _has_nul(text):
        message = f"the result has NUL characters or more than {MAX_RESULT_BYTES} bytes"
        return AttemptResult(Outcome.REJECTED, at, message=message, started_at=started_at)
    return AttemptResult(
        Outcome.COMPLETED,
        at,
        orjson.loads(text),
        started_at=started_at,
        result_bytes=len(text),
    )


def _has_nul(text: bytes) -> bool:
    """The pattern looks at every byte, which takes a hundred times as long as a mere search."""
    return b"\\u0000" in text and _NUL.search(text) is not None


def failed(error: BaseException, at: datetime, started_at: datetime) -> AttemptResult:
    """Of a handler that raised this."""
    message = _storable(f"{type(error).__name__}: {_text(error)}")
    match error:
        case Cancelled():
            return AttemptResult(Outcome.CANCELLED, at, started_at=started_at)
        case Reject():
            return AttemptResult(
                Outcome.REJECTED, at, message=_storable(_text(error)), started_at=started_at
            )
        case RetryLater():
            return AttemptResult(
                Outcome.ERROR,
                at,
                message=_storable(_text(error)),
                delay_ms=error.delay_ms,
                started_at=started_at,
            )
        case dramatiq.Retry() if error.delay is not None:
            return AttemptResult(
                Outcome.ERROR,
                at,
                message=message,
                delay_ms=_milliseconds(error.delay),
                started_at=started_at,
            )
    _log.info("attempt failed", exc_info=error)
    return AttemptResult(Outcome.ERROR, at, message=message, started_at=started_at)


def _text(error: BaseException) -> str:
    """What the error says, even where it can't."""
    try:
        return str(error)
    except Exception as another:
        return f"(its text can't be had: {type(another).__name__})"


def _milliseconds(delay: Any) -> int | None:
    """The wait that a handler asked for, if it is a number."""
    try:
        return int(delay)
    except (TypeError, ValueError, OverflowError):
        return None


def _storable(text: str) -> str:
    """A message as BSON can hold it: no lone surrogates, no novel."""
    return text[:2_000].encode("utf-8", "replace").decode()


def timed_out(job: InFlightJob, at: datetime, started_at: datetime) -> AttemptResult:
    """Of a run beyond its time limit."""
    message = f"ran beyond its time limit of {job.job.time_limit_ms} ms"
    return AttemptResult(Outcome.TIMEOUT, at, message=message, started_at=started_at)


def stuck(job: InFlightJob, at: datetime) -> AttemptResult:
    """Of a run that could not be interrupted: it, or others for it, are beyond a time limit."""
    if time.monotonic() >= job.deadline:
        return timed_out(job, at, job.job.started_at)
    message = "blocked the event loop until others were beyond their time limit"
    return AttemptResult(Outcome.TIMEOUT, at, message=message, started_at=job.job.started_at)
