"""Maps the driver's errors to ours, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import InvalidDocument
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
)

from service.errors import (
    InvalidEvent,
    StoreLate,
    StoreRefused,
    StoreUnavailable,
    StoreUnreachable,
)

_REFUSED = frozenset({15, 10334, 17419, 17420})
"""The server's codes for a document itself: nested too deep (Overflow), too large."""

_LATE = (ExecutionTimeout, NetworkTimeout, WaitQueueTimeoutError)
"""The server gave up at our deadline, we did on a connection that stands, or none was free."""
_NOT_ALLOWED = frozenset({13, 18, 8000})
"""The server's codes for who asks: Unauthorized, AuthenticationFailed, Atlas's own for both."""
_MOST_CHARACTERS = 200


@contextmanager
def mongo_errors() -> Iterator[None]:
    """Raises `StoreUnavailable` for whatever the driver raises (`StoreUnreachable`, `StoreLate`,
    `StoreRefused` where it is one of these), `InvalidEvent` for a value that BSON can't hold (which
    the driver doesn't count among its own errors) or the server refuses: no repetition mends that.
    """
    try:
        yield
    except PyMongoError as error:
        if _is_refusal(error):
            raise InvalidEvent(f"this can't be stored: {str(error)[:_MOST_CHARACTERS]}") from error
        if isinstance(error, OperationFailure) and error.code in _NOT_ALLOWED:
            raise StoreRefused(_refusal(error)) from error
        raise _kind(error)(f"MongoDB: {error}") from error
    except (InvalidDocument, OverflowError) as error:
        raise InvalidEvent(f"this can't be stored: {error}") from error


def _kind(error: PyMongoError) -> type[StoreUnavailable]:
    if isinstance(error, _LATE):
        return StoreLate
    return StoreUnreachable if isinstance(error, ConnectionFailure) else StoreUnavailable


def _refusal(error: OperationFailure) -> str:
    """In the server's words; the driver adds the whole reply."""
    why = str((error.details or {}).get("errmsg", error))[:_MOST_CHARACTERS]
    return f"MongoDB refuses this process, by user and password in MONGODB_URI: {why}"


def _is_refusal(error: PyMongoError) -> bool:
    """Whether all that went wrong is that documents were refused."""
    if isinstance(error, BulkWriteError):
        codes = {failure["code"] for failure in error.details["writeErrors"]}
        return bool(codes) and codes <= _REFUSED and not error.details.get("writeConcernErrors")
    return isinstance(error, OperationFailure) and error.code in _REFUSED
