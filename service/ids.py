"""UUIDv7 (RFC 9562, 5.7): ids that sort by the time they were made.

Made from the server's clock rather than by a library that reads the host's, because `created_at`
is the id's own time: a listing by time is a range of ids and needs no index of its own.
"""

from __future__ import annotations

import os
import re
from datetime import datetime

from service.clock import to_ms

_CHUNK_BYTES, _CHUNKS = 10, 400
_pool: list[bytes] = []
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_id(now_ms: int) -> str:
    """A new id for the moment `now_ms` (milliseconds since 1970)."""
    bits = int.from_bytes(random_chunk(), "big")
    value = now_ms << 80 | 0x7 << 76 | (bits >> 68) << 64 | 0b10 << 62 | bits & (1 << 62) - 1
    return _text(value)


def random_chunk() -> bytes:
    """Ten random bytes from the system, which is asked for many at once: asking for each would cost
    more than all else that is done for an event."""
    while True:
        try:
            return _pool.pop()
        except IndexError:
            taken = os.urandom(_CHUNK_BYTES * _CHUNKS)
            _pool.extend(taken[i : i + _CHUNK_BYTES] for i in range(0, len(taken), _CHUNK_BYTES))


os.register_at_fork(after_in_child=_pool.clear)


def is_id(text: str) -> bool:
    """Whether `text` is a UUIDv7 in its canonical form."""
    return _ID.fullmatch(text) is not None


def first_id_at(moment: datetime) -> str:
    """The smallest id of that millisecond: a bound for ranges, no event's id."""
    return _text(to_ms(moment) << 80)


def _text(value: int) -> str:
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
