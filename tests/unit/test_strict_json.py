"""The parser by itself; whole bodies are tried against a running web in tests/api/test_json.py."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api import strict_json
from service.api.strict_json import check_storable, parse
from service.errors import InvalidEvent, MalformedBody

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_can_be_stored_is_read_as_it_is(value: object, ensure_ascii: bool) -> None:
    parsed = parse(json.dumps(value, ensure_ascii=ensure_ascii).encode(), 64)
    assert repr(parsed.value) == repr(value)
    check_storable(parsed.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        value = parse(body, 64).value
    except MalformedBody:
        return
    assert value == json.loads(body)


@given(VALUES, st.integers(2, 6))
def test_nesting_is_counted_as_it_is(value: object, most: int) -> None:
    body = json.dumps(value).encode()
    if _depth(value) > most:
        with pytest.raises(MalformedBody, match="nested deeper"):
            parse(body, most)
    else:
        parse(body, most)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


@pytest.mark.parametrize("text", ["1", "1.0", "-0", "-0.0", "1e2", "100", "1E400", "12345678901"])
def test_a_number_keeps_its_kind(text: str) -> None:
    if text == "1E400":
        with pytest.raises(MalformedBody, match="too large"):
            parse(text.encode(), 64)
    else:
        assert repr(parse(text.encode(), 64).value) == repr(json.loads(text))


def test_only_what_may_be_unstorable_is_looked_at_again() -> None:
    assert not parse(b'{"a": [1, 2.5, "x", {"b": null}]}', 64).is_suspicious
    assert parse(b'"\\u0041"', 64).is_suspicious
    assert parse(b"[12345678901234567890]", 64).is_suspicious


def test_every_fault_is_named_up_to_a_bound() -> None:
    value = {"a": ["\0", 2**63], "b\0": "\ud800", "many": ["\0"] * 100}
    with pytest.raises(InvalidEvent) as caught:
        check_storable(value)
    pointers = {error.pointer for error in caught.value.errors}
    assert {"/a/0", "/a/1", "/b\\u0000"} <= pointers
    assert len(caught.value.errors) == 20


def test_pointers_are_made_only_for_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real = strict_json.pointer_to
    monkeypatch.setattr(strict_json, "pointer_to", lambda path: made.append(path) or real(path))
    check_storable({"k" * 1_000: [1, "x", {"a": None}] * 1_000})
    assert made == []
    with pytest.raises(InvalidEvent):
        check_storable({"k": [1] * 1_000 + ["\0"] * 1_000})
    assert len(made) == 20


def test_a_long_key_is_not_in_twenty_pointers() -> None:
    with pytest.raises(InvalidEvent) as caught:
        check_storable({"k" * 10_000: ["\0"] * 10})
    assert [error.pointer[-2:] for error in caught.value.errors] == ["/0"]


def test_an_integer_may_have_eighteen_digits_anywhere_and_be_looked_at_no_further() -> None:
    assert not parse(b'["123456789012345678", 123456789012345678.5]', 64).is_suspicious
    assert parse(b"[-1234567890123456789]", 64).is_suspicious


def test_long_bodies_are_read_as_short_ones_are() -> None:
    value = [1, -0, 1.5, 12345678901234567890, True, None, "x", {"a": [0]}] * 10_000
    assert repr(parse(json.dumps(value).encode(), 64).value) == repr(value)


def test_hostile_bodies_are_refused_quickly() -> None:
    hostile = [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"9" * 1_000_000,
        b"[" + b"9" * 500_000 + b"," + b"9" * 500_000 + b"]",
        b'"' + b"\\u0000" * 150_000 + b'"',
        b"1e" + b"9" * 1_000_000,
        b"0." + b"0" * 1_000_000,
    ]
    for body in hostile:
        began = time.perf_counter()
        with suppress(MalformedBody, InvalidEvent):
            check_storable(parse(body, 64).value)
        assert time.perf_counter() - began < 0.5, body[:20]
