from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api import times

OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS)  # noqa: DTZ001


@given(MOMENTS)
def test_a_moment_survives_its_text(moment: datetime) -> None:
    exact = moment.replace(microsecond=moment.microsecond // 1_000 * 1_000)
    assert times.parsed(moment.isoformat()) == exact
    shown = times.shown(exact.astimezone(UTC))
    assert shown is not None
    assert times.parsed(shown) == exact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00.000Z"),
        ("2030-01-31t12:00:00z", "2030-01-31T12:00:00.000Z"),
        ("2030-01-31T12:00:00.1239Z", "2030-01-31T12:00:00.123Z"),
        ("2030-01-31T12:00:00+02:30", "2030-01-31T09:30:00.000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("2000-02-29T00:00:00-00:00", "2000-02-29T00:00:00.000Z"),
    ],
)
def test_forms_of_rfc_3339(text: str, shown: str) -> None:
    assert times.shown(times.parsed(text)) == shown


def test_nothing_is_shown_of_nothing() -> None:
    assert times.shown(None) is None
