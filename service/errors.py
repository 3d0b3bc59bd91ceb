"""The project's own errors: a small tree, mapped to HTTP once, in `service.api.problems`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class PulseQueueError(Exception):
    """The root: everything that this project raises on purpose."""


class SettingError(PulseQueueError):
    """A setting has a value that isn't allowed. Raised at start; names the setting and the rule."""


class CatalogError(PulseQueueError):
    """An event type is declared twice, or with an option that can't work. Raised at import."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with a body: `pointer` is a JSON pointer (RFC 6901), `detail` a sentence."""

    pointer: str
    detail: str


class MalformedBody(PulseQueueError):
    """The body is not strict JSON in UTF-8 (400)."""


class InvalidEvent(PulseQueueError):
    """The body is JSON but doesn't fit (422)."""

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)


class InvalidQuery(PulseQueueError):
    """A path or query parameter is unknown or malformed (400)."""


class KeyReused(PulseQueueError):
    """The idempotency key is known, for another body (422)."""


class UnknownEvent(PulseQueueError):
    """No event has this id (404)."""


class UnknownSchedule(PulseQueueError):
    """No schedule has this name, or none can have it (404)."""


class TooManySchedules(PulseQueueError):
    """There are as many schedules as there may be (409)."""


class NotAllowedNow(PulseQueueError):
    """The job's status doesn't allow this transition (409)."""


class BacklogFull(PulseQueueError):
    """The backlog limit is reached; try again after `retry_after_seconds` (503)."""

    def __init__(self, detail: str, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailable(PulseQueueError):
    """MongoDB gave no answer, or refused: nothing can be said about the write (503)."""


class StoreUnreachable(StoreUnavailable):
    """There is no connection to a server that takes writes: it is away for everybody."""


class StoreLate(StoreUnavailable):
    """No answer in time. Either MongoDB hangs, or it is well and this took too long."""


class TooSlow(PulseQueueError):
    """What was asked for takes MongoDB too long; it is well otherwise (503)."""


class StoreRefused(StoreUnavailable):
    """MongoDB answers, and refuses this process: its login, or what it wants to do. No waiting
    mends that, only an operator does."""


class Reject(PulseQueueError):
    """Raised by a handler for a failure that no retry mends: the job fails at once, `rejected`."""


class RetryLater(PulseQueueError):
    """Raised by a handler: this attempt failed, and the next should start in `delay_ms`."""

    def __init__(self, message: str, delay_ms: int) -> None:
        super().__init__(message)
        self.delay_ms = int(delay_ms)


class Cancelled(PulseQueueError):
    """Raised by a handler that saw `is_cancelled()` and stopped: the job ends `cancelled`."""
