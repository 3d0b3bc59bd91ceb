"""Ids, and the time in them."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.clock import from_ms, to_ms
from service.ids import first_id_at, is_id, new_id
from tests.factories import NOW

moments = st.integers(0, 2**48 - 1)
NOW_MS = to_ms(NOW)


@given(st.integers(0, 253_402_300_799_999 - 1))
def test_an_id_lies_in_the_range_of_its_millisecond(now_ms: int) -> None:
    first, next_one = (first_id_at(from_ms(ms)) for ms in (now_ms, now_ms + 1))
    assert first <= new_id(now_ms) < next_one


@given(moments)
def test_an_id_is_a_version_7_uuid(now_ms: int) -> None:
    made = uuid.UUID(new_id(now_ms))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert is_id(str(made))


@given(moments, moments)
def test_ids_sort_by_their_time(one: int, other: int) -> None:
    if one < other:
        assert new_id(one) < new_id(other)


def test_ids_of_the_same_millisecond_differ() -> None:
    assert len({new_id(NOW_MS) for _ in range(10_000)}) == 10_000


def test_the_bound_of_a_millisecond_lies_between_its_neighbours() -> None:
    bound = first_id_at(NOW)
    assert new_id(NOW_MS - 1) < bound < new_id(NOW_MS)
    assert first_id_at(NOW + timedelta(microseconds=999)) == bound


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0190b8a0-0000-4000-8000-000000000000",
        "0190B8A0-0000-7000-8000-000000000000",
        "0190b8a0-0000-7000-c000-000000000000",
        "0190b8a0000070008000000000000000",
        "0190b8a0-0000-7000-8000-000000000000\n",
        "0190b8a0-0000-7000-8000-00000000000\u0660",
        "{0190b8a0-0000-7000-8000-000000000000}",
    ],
)
def test_what_only_resembles_an_id_is_none(text: str) -> None:
    assert not is_id(text)
