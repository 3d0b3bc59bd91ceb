"""What is kept of an answer, and when its sender wants the next try."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore
import httpx

MAX_BODY_BYTES = 4_096
"""Read of a body; the connection is closed on what is left."""
MAX_SHOWN_CHARACTERS = 500
FAILURES = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    OSError,
)
"""All that httpcore and the system raise where the network or the other side fails."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's status, headers, how long it took, and the beginning of its body as one line."""

    status: int
    headers: httpx.Headers
    duration_ms: int
    text: str


async def beginning(response: httpx.Response, until: float) -> str:
    """The first `MAX_BODY_BYTES` of the body as one line; nothing of a compressed body, which is
    never unpacked.

    `until` is the loop's time at which to stop reading. An error here is no error: the status has
    been received, and it alone says whether the message arrived.
    """
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return ""
    taken = bytearray()
    with suppress(*FAILURES):
        async with asyncio.timeout_at(until):
            async for part in response.aiter_raw():
                taken += part
                if len(taken) >= MAX_BODY_BYTES:
                    break
    return clean(taken[:MAX_BODY_BYTES].decode(errors="replace"), MAX_SHOWN_CHARACTERS)


def clean(text: str, length: int) -> str:
    """At most `length` characters, on one line, with nothing in them that a terminal obeys."""
    words = "".join(c if c.isprintable() else " " for c in text).split()
    return " ".join(words)[:length]


def retry_after_seconds(headers: httpx.Headers, now: datetime) -> float | None:
    """The wait that `Retry-After` asks for (RFC 9110, 10.2.3): a number of seconds, or a date.

    None without one that can be read. A date counts from the answer's own `Date` where it has one,
    else from `now`: so a clock that is off, on either side, does no harm. Never negative.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,20}", text):
        return float(text)
    wanted = _date(text)
    if wanted is None:
        return None
    since = _date(headers.get("date", "")) or now
    return max(0.0, (wanted - since).total_seconds())


def _date(text: str) -> datetime | None:
    """An HTTP date in any of its three forms (RFC 9110, 5.6.7)."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
