"""The server's clock, carried on by the monotonic one."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.clock import ServerClock, from_ms, to_ms
from tests.factories import NOW

HOUR = timedelta(hours=1)


def reading(clock: ServerClock, server_time: datetime) -> datetime:
    at = time.monotonic()
    clock.learn(server_time, at, at)
    return clock.now()


def test_before_a_first_reading_it_is_the_hosts_clock() -> None:
    assert abs(ServerClock().now() - datetime.now(UTC)) < timedelta(milliseconds=50)


def test_a_host_that_is_an_hour_off_shows_the_servers_time() -> None:
    clock = ServerClock()
    for server_time in (NOW + HOUR, NOW - HOUR):
        assert abs(reading(clock, server_time) - server_time) < timedelta(milliseconds=50)


def test_the_hosts_error_is_known() -> None:
    clock = ServerClock()
    reading(clock, datetime.now(UTC) - HOUR)
    assert abs(clock.host_skew_seconds() - 3600) < 0.05


def test_a_reading_counts_for_the_middle_of_its_round_trip() -> None:
    clock = ServerClock()
    at = time.monotonic()
    clock.learn(NOW, at - 3, at - 1)
    assert abs(clock.now() - (NOW + timedelta(seconds=2))) < timedelta(milliseconds=50)


def test_a_reading_that_took_long_does_not_replace_a_better_one() -> None:
    clock, at = ServerClock(), time.monotonic()
    clock.learn(NOW, at, at)
    clock.learn(NOW + timedelta(seconds=2), at + 1, at + 2)  # the middle would be half a second off
    assert abs(clock.now() - NOW) < timedelta(milliseconds=50)


def test_a_reading_that_took_long_still_shows_that_the_clock_was_set() -> None:
    clock, at = ServerClock(), time.monotonic()
    clock.learn(NOW, at, at)
    clock.learn(NOW + HOUR, at - 0.1, at + 0.1)
    assert abs(clock.now() - NOW - HOUR) < timedelta(milliseconds=50)


def test_an_old_reading_says_less_and_less() -> None:
    clock, at = ServerClock(), time.monotonic()
    clock.learn(NOW, at - 1_000, at - 1_000)
    clock.learn(NOW + timedelta(seconds=1_000.04), at - 0.05, at + 0.05)
    assert abs(clock.now() - NOW - timedelta(seconds=1_000.04)) < timedelta(milliseconds=20)


def test_a_naive_reading_is_taken_as_utc() -> None:
    clock = ServerClock()
    assert abs(reading(clock, NOW.replace(tzinfo=None)) - NOW) < timedelta(milliseconds=50)


def test_times_are_whole_milliseconds_as_bson_keeps_them() -> None:
    assert ServerClock().now().microsecond % 1000 == 0


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_milliseconds_survive_the_way_there_and_back(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms
