"""Tracebacks are as Python prints them, however they are made."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from service.runtime import tracebacks
from service.runtime.tracebacks import text_of


def raised(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def fail(what: str = "no") -> None:
    raise RuntimeError(what)


def fail_with_cause() -> None:
    try:
        fail()
    except RuntimeError as error:
        raise ValueError("again") from error


def fail_in_a_handler() -> None:
    try:
        fail()
    except RuntimeError:
        raise ValueError("again")  # noqa: B904


def fail_without_its_context() -> None:
    try:
        fail()
    except RuntimeError:
        raise ValueError("again") from None


def fail_with_a_note() -> None:
    error = RuntimeError("no")
    error.add_note("a note\nof two lines")
    raise error


def fail_deep(depth: int = 200) -> None:
    fail_deep(depth - 1) if depth else fail()


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def fail_mute() -> None:
    raise Mute


CASES: list[Callable[[], Any]] = [
    fail,
    fail_with_cause,
    fail_in_a_handler,
    fail_without_its_context,
    fail_with_a_note,
    fail_deep,
    fail_mute,
    lambda: fail("two\nlines"),
    lambda: fail_dep,  # type: ignore[name-defined]  # noqa: F821
    lambda: "".lowr,  # type: ignore[attr-defined]
    lambda: compile("a b", "x", "exec"),
    lambda: (_ for _ in ()).throw(ExceptionGroup("many", [ValueError("1"), KeyError("2")])),
    lambda: {}["missing"],
    lambda: 1 / 0,
]


@pytest.mark.parametrize("call", CASES)
def test_it_is_what_python_prints_the_first_time_and_the_next(call: Callable[[], Any]) -> None:
    for _ in range(3):
        error = raised(call)
        assert text_of(error) == "".join(traceback.format_exception(error)).removesuffix("\n")


def test_an_exception_that_was_never_raised_has_no_frames() -> None:
    assert text_of(RuntimeError("no")) == "RuntimeError: no"


def test_the_same_place_with_another_text_keeps_its_own_text() -> None:
    texts = [text_of(raised(lambda what=what: fail(what))) for what in ("one", "two")]
    assert [text.splitlines()[-1] for text in texts] == ["RuntimeError: one", "RuntimeError: two"]


def test_two_places_of_one_function_are_told_apart() -> None:
    def at(line: int) -> None:
        if line == 1:
            raise RuntimeError("no")
        raise RuntimeError("no")

    first, second = (text_of(raised(lambda n=n: at(n))) for n in (1, 2))
    assert first != second


def test_what_is_kept_is_bounded_and_its_code_stays_alive() -> None:
    for number in range(1_000):
        scope: dict[str, Any] = {}
        exec(f"def f{number}():\n    raise RuntimeError('no')", scope)
        assert f"in f{number}\n" in text_of(raised(scope[f"f{number}"]))
    assert len(tracebacks._kept) <= 200
