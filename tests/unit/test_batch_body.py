"""Cutting a batch into its events; the slices of one call are made as short as can be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api import batch_body
from service.api.strict_json import Part, parse
from service.concurrency.cpu_lane import Steps
from service.errors import MalformedBody
from tests.unit.test_strict_json import VALUES


@pytest.fixture(autouse=True, scope="module")
def _short_slices() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_body, "_SLICE_BYTES", 2)
        patch.setattr(batch_body, "_STEP_MATCHES", 1)
        yield


def cut(body: bytes, most: int = 100) -> list[Part] | None:
    steps: Steps[list[Part] | None] = batch_body.parts(body, most)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            found: list[Part] | None = ended.value
            return found


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_the_parts_are_the_events(events: list[object], indent: int | None, ascii_: bool) -> None:
    body = json.dumps({"events": events}, indent=indent, ensure_ascii=ascii_).encode()
    found = cut(body)
    assert found is not None
    values = [parse(body, 64, part).value for part in found]
    assert repr(values) == repr(events)


@given(st.binary(max_size=100))
def test_any_bytes_are_cut_or_refused(inside: bytes) -> None:
    body = b'{"events":[' + inside + b"]}"
    try:
        found = cut(body)
        values = None if found is None else [parse(body, 64, part).value for part in found]
    except MalformedBody:
        with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind
            json.loads(body, object_pairs_hook=_strict)
        return
    if found is not None:
        assert repr(values) == repr(json.loads(body)["events"])


def _strict(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """What `json` takes and we don't must not look as if it were JSON."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'[{"events": []}]',
        b'{"events": {}}',
        b'{"event": [1]}',
        b'{"events": [1], "x": 1}',
        b'{"x": "]}\\"[", "events": [1]}',
        b'"{[\\\\"',
        b" 5 ",
    ],
)
def test_json_that_is_no_batch_has_no_parts(body: bytes) -> None:
    assert cut(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"events": [',
        b'{"events": [1',
        b'{"events": [1,',
        b'{"events": [1,]}',
        b'{"events": [,1]}',
        b'{"events": [1 2]}',
        b'{"events": [{]}',
        b'{"events": ["a\\',
        b'{"events": ["a\\"]}',
        b'{"events": ["abc]}',
        b'{"events": [1]',
        b'{"events": [1]}]',
        b'{"events": [1]} {}',
    ],
)
def test_what_is_not_closed_or_goes_on_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody, match=r"line 1, column \d"):
        cut(body)


def test_no_more_is_read_than_may_be_there() -> None:
    found = cut(b'{"events":[1,2,3,4,5,,,,', most=3)
    assert found is not None
    assert len(found) == 4


def test_what_is_wrong_with_a_part_is_found_at_its_place_in_the_body() -> None:
    body = '{"events": ["é",\n {"ä": tru}]}'.encode()
    found = cut(body)
    assert found is not None
    with pytest.raises(MalformedBody, match="Expecting value at line 2, column 8"):
        parse(body, 64, found[1])
    body = b'{"events": [1, "\xff"]}'
    found = cut(body)
    assert found is not None
    with pytest.raises(MalformedBody, match="byte 16 can't be read"):
        parse(body, 64, found[1])


@pytest.mark.parametrize(("most", "fits"), [(5, True), (4, False)])
def test_a_part_is_as_deep_as_the_body_is(most: int, fits: bool) -> None:
    body = b'{"events":[[[[]],[[]],[[]]]]}'
    found = cut(body)
    assert found is not None
    if fits:
        parse(body, most, found[0])
    else:
        with pytest.raises(MalformedBody, match="deeper than 4 levels"):
            parse(body, most, found[0])
