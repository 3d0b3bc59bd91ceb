"""Maps the driver's errors to ours, once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import PyMongoError

from service.errors import StoreUnavailable


@contextmanager
def mongo_errors() -> Iterator[None]:
    """Raises `StoreUnavailable` for whatever the driver raises."""
    try:
        yield
    except PyMongoError as error:
        raise StoreUnavailable(f"MongoDB: {error}") from error
