"""Values of handlers as JSON (RFC 8259)."""

from __future__ import annotations

import dataclasses
import json
from enum import Enum
from typing import Any

import orjson


def encoded(value: Any) -> bytes:
    """The value in UTF-8. Raises `TypeError` for what is no JSON, NaN and Infinity included.

    The encoder writes these as null, so where there is no null, there was none of them.
    """
    text = orjson.dumps(value)
    if value is not None and b"null" in text and not _is_finite(value):
        raise TypeError("it holds NaN or Infinity")
    return text


def _is_finite(value: Any) -> bool:
    """Of a value that the other encoder has taken: this one can tell, and is as quick as that."""
    try:
        json.dumps(value, allow_nan=False, default=_parts)
    except ValueError:
        return False
    return True


def _parts(value: Any) -> Any:
    """Of what only the other encoder takes: the parts that may hold a number."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return None
