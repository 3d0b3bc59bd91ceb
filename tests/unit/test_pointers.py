"""JSON pointers in answers."""

from __future__ import annotations

from service.api.pointers import cut, escaped, pointer_to
from service.errors import FieldError


def test_keys_are_escaped_in_pointers() -> None:
    assert escaped("a/b~c") == "a~1b~0c"
    assert escaped("\ud800") == "\\ud800"


def test_a_path_is_a_pointer_from_the_outside_in() -> None:
    assert pointer_to(None) == ""
    assert pointer_to((((None, "a/b"), 3), "")) == "/a~1b/3/"


def test_no_more_errors_are_made_than_are_shown() -> None:
    made = (FieldError(f"/{number}", "wrong") for number in range(1_000))
    assert len(cut(made)) == 20
    assert next(made).pointer == "/20"


def test_long_pointers_are_fewer_but_one_is_always_there() -> None:
    assert len(cut(FieldError("/" + "k" * 5_000, "wrong") for _ in range(10))) == 3
    assert len(cut(FieldError("/" + "k" * 50_000, "wrong") for _ in range(10))) == 1
    assert cut([]) == []
