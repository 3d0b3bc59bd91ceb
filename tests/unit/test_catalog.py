"""Event types: how they are declared, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from marshmallow import Schema, fields

from service.backoff import Backoff
from service.catalog import Catalog
from service.errors import CatalogError
from tests.factories import done, done_async, make_catalog, make_type


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


def test_a_type_that_says_nothing_has_the_documented_defaults(catalog: Catalog) -> None:
    catalog.event_type("email")(done)
    email = catalog.get("email")
    assert email is not None
    assert (email.max_attempts, email.time_limit_ms, email.queue) == (5, 60_000, "default")
    assert email.backoff == Backoff(first_ms=1_000, cap_ms=300_000)
    assert email.schema.load({"any": {"thing": 1}}) == {"any": {"thing": 1}}


def test_the_decorated_function_stays_what_it_was(catalog: Catalog) -> None:
    assert catalog.event_type("email")(done) is done


def test_a_type_keeps_its_schema_and_options(catalog: Catalog) -> None:
    class Email(Schema):
        to = fields.Email(required=True)

    backoff = Backoff(5, 10)
    options: dict[str, Any] = {"max_attempts": 8, "backoff": backoff, "time_limit_ms": 100}
    catalog.event_type("email", schema=Email, queue="mail", **options)(done)
    email = catalog.get("email")
    assert email is not None
    assert isinstance(email.schema, Email)
    assert (email.max_attempts, email.backoff, email.time_limit_ms) == (8, backoff, 100)
    assert catalog.queues == ["mail"]


def test_a_coroutine_function_is_asynchronous(catalog: Catalog) -> None:
    catalog.event_type("slow")(done_async)
    catalog.event_type("fast")(done)
    assert {t.name: t.is_async for t in catalog} == {"slow": True, "fast": False}


def test_a_misspelt_option_is_refused_with_the_right_one(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="did you mean 'max_attempts'"):
        catalog.event_type("email", max_atempts=3)(done)


def test_an_option_like_no_other_is_refused_without_a_guess(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match=r"no option 'colour'$"):
        catalog.event_type("email", colour="red")(done)


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"max_attempts": 101},
        {"max_attempts": "5"},
        {"max_attempts": 1.5},
        {"max_attempts": True},
        {"time_limit_ms": 99},
        {"time_limit_ms": 86_400_001},
        {"time_limit_ms": "1s"},
        {"backoff": 5},
        {"backoff": Backoff(first_ms=0.5)},  # type: ignore[arg-type]
        {"backoff": Backoff(first_ms=-1)},
        {"backoff": Backoff(first_ms=True)},
        {"backoff": Backoff(first_ms=1_001, cap_ms=1_000)},
        {"backoff": Backoff(cap_ms="5s")},  # type: ignore[arg-type]
        {"backoff": Backoff(cap_ms=366 * 86_400_000 + 1)},
        {"queue": ""},
        {"queue": "two words"},
        {"queue": "default.DQ"},
        {"queue": "dead_letter"},
        {"queue": "x" * 65},
        {"queue": 5},
    ],
)
def test_an_option_that_cannot_work_is_refused_by_name(
    catalog: Catalog, options: dict[str, Any]
) -> None:
    (name,) = options
    with pytest.raises(CatalogError, match=name):
        catalog.event_type("email", **options)(done)


def test_a_backoff_that_cannot_work_is_refused_with_what_is_allowed(catalog: Catalog) -> None:
    rule = "backoff's first_ms 0.5 is not a whole number from 0 to cap_ms \\(300000\\)"
    with pytest.raises(CatalogError, match=rule):
        catalog.event_type("email", backoff=Backoff(first_ms=0.5))(done)  # type: ignore[arg-type]


def test_a_backoff_may_be_none_at_all_or_a_year(catalog: Catalog) -> None:
    catalog.event_type("at.once", backoff=Backoff(0, 0))(done)
    catalog.event_type("yearly", backoff=Backoff(366 * 86_400_000, 366 * 86_400_000))(done)


@pytest.mark.parametrize(
    "name", ["", "Email", "e mail", "1st", "e$mail", "x" * 101, "email\n", "dead_letter"]
)
def test_a_name_that_cannot_be_a_type_is_refused(catalog: Catalog, name: str) -> None:
    with pytest.raises(CatalogError, match="name"):
        catalog.event_type(name)(done)


def test_two_functions_for_one_type_are_refused(catalog: Catalog) -> None:
    catalog.event_type("email")(done)
    with pytest.raises(CatalogError, match="declared twice"):
        catalog.event_type("email")(done_async)


def test_the_same_function_may_be_declared_again(catalog: Catalog) -> None:
    catalog.event_type("email")(done)
    catalog.event_type("email")(done)
    assert len(catalog) == 1


def test_an_unknown_type_is_none() -> None:
    assert make_catalog([make_type("email")]).get("mail") is None
