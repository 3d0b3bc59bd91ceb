"""From parsed JSON to documents, where it gets large."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from marshmallow import Schema, fields, pre_load

from service.api.intake import Intake
from service.catalog import Catalog, EventType
from service.clock import ServerClock
from service.errors import InvalidEvent
from service.store.payloads import packed, packed_bytes


class Strict(Schema):
    number = fields.Integer()


class Tidied(Strict):
    @pre_load
    def _tidy(self, given: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {name: value for name, value in given.items() if name == "number"}


class Asked(Strict):
    """Counts how often it was asked."""

    times = 0

    def load(self, *given: Any, **options: Any) -> Any:
        Asked.times += 1
        return super().load(*given, **options)


@pytest.fixture
def intake() -> Intake:
    catalog = Catalog()
    for name, schema in (("strict", Asked()), ("tidied", Tidied())):
        catalog.add(EventType(name, print, schema))
    return Intake(catalog, ServerClock())


def take(intake: Intake, type_: str, payload: dict[str, Any], size: int = 0) -> dict[str, Any]:
    return intake.single({"type": type_, "payload": payload}, None, "request", None, size)


def test_of_thousands_of_unknown_fields_some_are_named_and_no_schema_is_asked(
    intake: Intake,
) -> None:
    asked_before = Asked.times
    with pytest.raises(InvalidEvent) as caught:
        take(intake, "strict", {f"x{number}": 1 for number in range(10_000)} | {"number": "no"})
    assert Asked.times == asked_before
    pointers = [error.pointer for error in caught.value.errors]
    assert pointers == [f"/payload/x{number}" for number in range(20)]
    assert {error.detail for error in caught.value.errors} == {"Unknown field."}


def test_a_few_unknown_fields_are_the_schemas(intake: Intake) -> None:
    with pytest.raises(InvalidEvent) as caught:
        take(intake, "strict", {"x": 1, "number": "no"})
    pointers = {error.pointer for error in caught.value.errors}
    assert pointers == {"/payload/x", "/payload/number"}


def test_a_schema_that_tidies_first_is_asked_about_anything(intake: Intake) -> None:
    take(intake, "tidied", {f"x{number}": 1 for number in range(1_000)})


def test_a_long_name_is_compared_with_no_other(intake: Intake) -> None:
    with pytest.raises(InvalidEvent, match="did you mean 'strict'"):
        take(intake, "strikt", {})
    with pytest.raises(InvalidEvent, match=r"/type: [A-Z]|there is no such event type"):
        take(intake, "strict" * 100_000, {})


def test_a_large_payload_is_packed_and_stored_as_it_is(intake: Intake) -> None:
    payload = {"b": 1, "_id": {"_id": 2, "a": 3}, "$ref": "x", "a.b": [1.5, None, {"": []}]}
    small, large = (take(intake, "tidied", payload, size) for size in (100, 2_000))
    assert packed_bytes(small) == 0
    assert packed_bytes(large) == len(bson.encode(payload))
    stored = bson.decode(bson.encode({**large, "_id": small["_id"]}))
    assert repr(stored["payload"]) == repr(payload)


def test_what_bson_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidEvent):
        packed({"x": 2**64})
