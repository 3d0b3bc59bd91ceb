"""When a schedule ticks: moments, by a cron expression on a local clock or by seconds since 1970.

A local time ticks at the moment at which the local clock first shows it or has jumped over it. So a
time that the clock skips ticks right after the gap, one that comes twice ticks once, and of two
local times the later one never ticks first. Two that fall into the same gap are one tick.

Nothing here reads a clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from service.clock import from_ms, to_ms

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = 5
_is_zone_name = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+){0,3}").fullmatch
_NO_ZONES = re.compile(r"(?:posix|right)/.*|localtime|posixrules|Factory")
"""What the host's folder of zones has beside those that IANA names."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Either `cron`, by the clock of `timezone`, or `every_seconds`, at multiples since 1970.

    Made of what `check_cron` and `check_timezone` have passed; without either it never ticks.
    """

    cron: str | None = None
    timezone: str = "UTC"
    every_seconds: int | None = None

    @classmethod
    def of(cls, schedule: Mapping[str, Any]) -> Self:
        """That of a stored schedule, which has all three, some of them None."""
        return cls(schedule["cron"], schedule["timezone"] or "UTC", schedule["every_seconds"])

    def after(self, moment: datetime) -> datetime | None:
        """The first tick after then (aware; the answer is UTC). None: there is none in 50 years."""
        return next(self.ticks(moment), None)

    def upcoming(self, first: datetime | None, count: int) -> list[datetime]:
        """`first`, which is a tick (None: there is none), and those that follow it."""
        return [] if first is None else [first, *islice(self.ticks(first), count - 1)]

    def ticks(self, after: datetime) -> Iterator[datetime]:
        """All ticks after then, in order."""
        if self.every_seconds is not None:
            return _multiples(self.every_seconds * 1000, after)
        return _cron_ticks(self.cron or "", self.timezone, after)


def check_cron(expression: str) -> None:
    """Raises `ValueError` with a sentence for what is no cron expression of ours."""
    try:
        if len(_fields(expression).split()) != _FIELDS:
            raise ValueError("not five fields, nor @hourly, @daily, @weekly, @monthly or @yearly")
        CronSim(_fields(expression), datetime(2000, 1, 1))  # noqa: DTZ001
    except CronSimError as error:
        raise ValueError(str(error).lower()) from None
    except AssertionError:  # L/2, for one
        raise ValueError("a step of what has no steps") from None


def check_timezone(name: str) -> None:
    """Raises `ValueError` with a sentence for what is no IANA name of a time zone."""
    try:
        if not _is_zone_name(name) or _NO_ZONES.fullmatch(name):
            raise ValueError(name)
        ZoneInfo(name)
    except (ValueError, LookupError, OSError):
        raise ValueError("no time zone has this name, such as Europe/Berlin") from None


def _fields(expression: str) -> str:
    return _ALIASES.get(expression.strip().lower(), expression)


def _multiples(step_ms: int, after: datetime) -> Iterator[datetime]:
    tick_ms = to_ms(after) // step_ms * step_ms
    while True:
        tick_ms += step_ms
        yield from_ms(tick_ms)


def _cron_ticks(expression: str, timezone: str, after: datetime) -> Iterator[datetime]:
    zone, last = ZoneInfo(timezone), after
    local = after.astimezone(zone).replace(tzinfo=None)
    # Times that the local clock has shown before are among them where it was set back.
    for shown in CronSim(_fields(expression), local):
        tick = _first_shown(shown, timezone)
        if tick > last:
            last = tick
            yield tick


@lru_cache(maxsize=4_096)
def _first_shown(local: datetime, timezone: str) -> datetime:
    """When the zone's clock first shows the local time, or has jumped over it."""
    zone = ZoneInfo(timezone)
    moment = local.replace(tzinfo=zone).astimezone(UTC)
    if _local(moment, zone) == local:
        return moment
    # In a gap: read by the offset before it that is after its end, and the other way round.
    before = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    while (step := (moment - before) // 2) >= timedelta(seconds=1):
        middle = (before + step).replace(microsecond=0)
        before, moment = (before, middle) if _local(middle, zone) >= local else (middle, moment)
    return moment


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None)
