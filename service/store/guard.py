"""Maps the driver's errors to ours, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import InvalidDocument
from pymongo.errors import PyMongoError

from service.errors import InvalidEvent, StoreUnavailable


@contextmanager
def mongo_errors() -> Iterator[None]:
    """Raises `StoreUnavailable` for whatever the driver raises, `InvalidEvent` for a value that
    BSON can't hold (which the driver doesn't count among its own errors)."""
    try:
        yield
    except PyMongoError as error:
        raise StoreUnavailable(f"MongoDB: {error}") from error
    except (InvalidDocument, OverflowError) as error:
        raise InvalidEvent(f"this can't be stored: {error}") from error
