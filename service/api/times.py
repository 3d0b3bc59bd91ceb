"""Moments as RFC 3339 texts: UTC with milliseconds and `Z` out, any offset in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_match = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(\.\d{1,30})?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
).fullmatch


def shown(moment: datetime | None) -> str | None:
    """An aware UTC moment as text."""
    return None if moment is None else moment.isoformat("T", "milliseconds")[:-6] + "Z"


def parsed(text: str) -> datetime:
    """An aware UTC moment, cut to milliseconds. Raises `ValueError` with a sentence."""
    found = _match(text)
    if found is None:
        raise ValueError("not an RFC 3339 date and time, such as 2030-01-31T12:00:00Z")
    year, month, day, hour, minute, second = map(int, found.group(1, 2, 3, 4, 5, 6))
    milliseconds = int((found.group(7) or ".0")[1:4].ljust(3, "0"))
    leap, second = (1, 59) if second == 60 else (0, second)
    try:
        offset = _offset(*found.group(8, 9, 10))
        zone = timezone(offset) if offset else UTC
        local = datetime(year, month, day, hour, minute, second, milliseconds * 1000, zone)
        return (local + timedelta(seconds=leap)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("there is no such date and time") from None


def _offset(sign: str | None, hours: str | None, minutes: str | None) -> timedelta:
    if sign is None or hours is None or minutes is None:
        return timedelta(0)
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError(hours)
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return -offset if sign == "-" else offset
