"""When schedules tick: over changes of the clock, and for whatever else calendars have."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import given

from service.ticks import Timing, check_cron, check_timezone

BERLIN, NEW_YORK, KOLKATA = "Europe/Berlin", "America/New_York", "Asia/Kolkata"
APIA, LORD_HOWE = "Pacific/Apia", "Australia/Lord_Howe"
EXPRESSIONS = (
    *("* * * * *", "*/7 * * * *", "30 2 * * *", "0 2,3 * * *", "59 1-3 * * *", "0 */5 * * *"),
    *("15 1 * * sun", "0 12 1,15 * *", "30 0 31 * *", "0 0 29 2 *", "5 4 * mar,oct sat"),
    *("@hourly", "@daily", "@weekly", "@monthly", "@yearly"),
)
ZONES = ("UTC", BERLIN, NEW_YORK, KOLKATA, APIA, LORD_HOWE, "Africa/Casablanca")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "cron", "after", "expected"),
    [
        # The gap of spring, 02:00 to 03:00: right after it, and once with 03:00's own.
        (BERLIN, "30 2 * * *", "2026-03-28T02:00", "03-29T01:00 03-30T00:30 03-31T00:30"),
        (BERLIN, "0 2,3 * * *", "2026-03-28T12:00", "03-29T01:00 03-30T00:00 03-30T01:00"),
        (BERLIN, "*/30 * * * *", "2026-03-29T00:00", "03-29T00:30 03-29T01:00 03-29T01:30"),
        (BERLIN, "0 3 * * *", "2026-03-28T12:00", "03-29T01:00 03-30T01:00 03-31T01:00"),
        (NEW_YORK, "30 2 * * *", "2026-03-07T12:00", "03-08T07:00 03-09T06:30 03-10T06:30"),
        # Autumn, 02:00 to 03:00 (in New York 01:00 to 02:00) comes twice: once, the first time.
        (BERLIN, "30 2 * * *", "2026-10-24T12:00", "10-25T00:30 10-26T01:30 10-27T01:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T00:30", "10-26T01:30 10-27T01:30 10-28T01:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T01:10", "10-26T01:30 10-27T01:30 10-28T01:30"),
        (BERLIN, "*/30 * * * *", "2026-10-25T00:00", "10-25T00:30 10-25T02:00 10-25T02:30"),
        (BERLIN, "0 3 * * *", "2026-10-24T12:00", "10-25T02:00 10-26T02:00 10-27T02:00"),
        (NEW_YORK, "30 1 * * *", "2026-10-31T12:00", "11-01T05:30 11-02T06:30 11-03T06:30"),
        (NEW_YORK, "0 2 * * *", "2026-10-31T12:00", "11-01T07:00 11-02T07:00 11-03T07:00"),
        # Half an hour of change, and none.
        (LORD_HOWE, "15 2 * * *", "2026-10-02T12:00", "10-02T15:45 10-03T15:30 10-04T15:15"),
        (KOLKATA, "0 9 * * *", "2026-03-28T12:00", "03-29T03:30 03-30T03:30 03-31T03:30"),
        # 2011-12-30 never was in Apia: it went from the 29th to the 31st.
        (APIA, "0 12 * * *", "2011-12-29T00:00", "12-29T22:00 12-30T10:00 12-30T22:00"),
        (APIA, "0 12 30 12 *", "2011-01-01T00:00", "12-30T10:00 12-29T22:00 12-29T22:00"),
        # The calendar.
        ("UTC", "0 0 29 2 *", "2026-03-01T00:00", "02-29T00:00 02-29T00:00 02-29T00:00"),
        ("UTC", "0 0 31 * *", "2026-01-31T00:00", "03-31T00:00 05-31T00:00 07-31T00:00"),
        (BERLIN, "0 0 31 * *", "2026-03-01T00:00", "03-30T22:00 05-30T22:00 07-30T22:00"),
        ("UTC", "0 0 13 * fri", "2026-02-01T00:00", "02-06T00:00 02-13T00:00 02-20T00:00"),
        ("UTC", "0 0 * * 0", "2026-02-02T00:00", "02-08T00:00 02-15T00:00 02-22T00:00"),
        ("UTC", "0 0 * * 7", "2026-02-02T00:00", "02-08T00:00 02-15T00:00 02-22T00:00"),
        ("UTC", "@Monthly", "2026-02-02T00:00", "03-01T00:00 04-01T00:00 05-01T00:00"),
    ],
)
def test_a_local_time_ticks_when_its_clock_first_shows_it_or_has_jumped_over_it(
    zone: str, cron: str, after: str, expected: str
) -> None:
    ticks = islice(Timing(cron, zone).ticks(moment(after)), 3)
    assert " ".join(f"{tick:%m-%dT%H:%M}" for tick in ticks) == expected


def test_the_29th_of_february_comes_every_four_years_and_not_in_2100() -> None:
    years = [t.year for t in islice(Timing("0 0 29 2 *").ticks(moment("2090-01-01")), 3)]
    assert years == [2092, 2096, 2104]


@pytest.mark.parametrize(
    ("every", "after", "expected"),
    [
        (1, "1970-01-01T00:00:00.000", "1970-01-01T00:00:01"),
        (7, "1970-01-01T00:00:06.999", "1970-01-01T00:00:07"),
        (7, "1970-01-01T00:00:07.000", "1970-01-01T00:00:14"),
        (3_600, "2026-03-29T00:59:59.999", "2026-03-29T01:00:00"),
        (31_536_000, "2026-01-01T00:00:00.000", "2026-12-18T00:00:00"),
    ],
)
def test_every_so_many_seconds_is_at_multiples_since_1970(
    every: int, after: str, expected: str
) -> None:
    assert Timing(every_seconds=every).after(moment(after)) == moment(expected)


def test_what_comes_is_the_next_tick_and_those_after_it() -> None:
    timing = Timing("0 0 1 * *")
    first = timing.after(moment("2026-01-15"))
    assert [t.month for t in timing.upcoming(first, 5)] == [2, 3, 4, 5, 6]
    assert timing.upcoming(None, 5) == []


# properties

MOMENTS = st.datetimes(
    moment("2011-12-01").replace(tzinfo=None),
    moment("2040-01-01").replace(tzinfo=None),
    timezones=st.just(UTC),
)
TIMINGS = st.one_of(
    st.builds(Timing, cron=st.sampled_from(EXPRESSIONS), timezone=st.sampled_from(ZONES)),
    st.builds(Timing, every_seconds=st.integers(1, 31_536_000)),
)


@given(TIMINGS, MOMENTS)
def test_ticks_rise_strictly_and_each_is_the_first_after_the_one_before(
    timing: Timing, after: datetime
) -> None:
    last = after
    for tick in islice(timing.ticks(after), 20):
        assert tick > last
        assert timing.after(last) == tick
        last = tick


@given(TIMINGS, MOMENTS, MOMENTS)
def test_from_wherever_one_looks_there_are_the_same_ticks(
    timing: Timing, one: datetime, other: datetime
) -> None:
    early, late = sorted((one, other))
    late = min(late, early + timedelta(days=2))
    following = timing.after(late)
    passed = [t for t in islice(timing.ticks(early), 500) if t <= late]
    if len(passed) < 500:
        assert next(iter([*passed, following])) == timing.after(early)


@given(
    st.sampled_from([c for c in EXPRESSIONS if not c.startswith("@")]),
    st.sampled_from(ZONES),
    MOMENTS,
)
def test_every_local_time_that_matches_ticks_once(cron: str, zone: str, after: datetime) -> None:
    """Each minute that the local clock shows for the first time either ticks or doesn't match."""
    matching = Timing(cron, "UTC")
    begin = after.replace(second=0, microsecond=0)
    ticks = set(islice(Timing(cron, zone).ticks(begin), 200))
    local_zone = ZoneInfo(zone)
    shown = begin.astimezone(local_zone).replace(tzinfo=None)
    for minute in range(1, 200):
        now = begin + timedelta(minutes=minute)
        local = now.astimezone(local_zone).replace(tzinfo=None)
        if local <= shown:  # it has come before
            assert now not in ticks
            continue
        upcoming = matching.after(shown.replace(tzinfo=UTC))
        assert (now in ticks) == (upcoming is not None and upcoming <= local.replace(tzinfo=UTC))
        shown = local


# what is refused


@pytest.mark.parametrize(
    "cron",
    [
        *("", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *"),
        *("* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *", "a * * * *", "* * * foo *"),
        *("@reboot", "@every 5s", "-1 * * * *", "1.5 * * * *", "\u0661 * * * *", "* * * * 1L/2"),
        *("0 0 30 2 *", "0 0 31 2,4,6,9,11 *"),
    ],
)
def test_what_is_no_cron_expression_is_refused(cron: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        check_cron(cron)


def test_an_expression_may_be_right_and_never_come_true() -> None:
    check_cron("* * */20 * 1L")
    assert Timing("* * */20 * 1L").after(moment("2026-01-01")) is None


@given(st.text(max_size=30))
def test_no_text_breaks_it(text: str) -> None:
    for check in (check_cron, check_timezone):
        with suppress(ValueError):
            check(text)


@pytest.mark.parametrize("name", ["UTC", BERLIN, "Etc/GMT+5", "America/Argentina/Buenos_Aires"])
def test_an_iana_name_is_a_time_zone(name: str) -> None:
    check_timezone(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "Mars/Olympus", "europe/berlin", "../../etc/passwd", "/etc/localtime", "Europe"),
        *("localtime", "posixrules", "right/UTC", "posix/UTC", "UTC\0", "zone.tab", "Europe/"),
    ],
)
def test_what_is_no_iana_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        check_timezone(name)
