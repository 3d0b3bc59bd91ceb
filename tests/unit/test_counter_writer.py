"""Counts are gathered, and none is lost by stopping."""

from __future__ import annotations

import logging
import threading
from typing import Any, cast

import pytest

from service.errors import StoreUnavailable
from service.store import Counters, Deltas
from service.web.counter_writer import CounterWriter
from tests.factories import eventually

pytestmark = pytest.mark.timeout(30)


class Book:
    """Stands in for `Counters`: keeps what each write added."""

    def __init__(self) -> None:
        self.writes: list[float] = []

    def add(self, deltas: Deltas) -> None:
        if deltas:
            self.writes.append(deltas.by_document["simulate"]["received"])


class SlowBook(Book):
    """Its first write takes until `may_end`."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_end = threading.Event(), threading.Event()

    def add(self, deltas: Deltas) -> None:
        self.begun.set()
        self.may_end.wait(10)
        super().add(deltas)


class ClosedBook(Book):
    """Its first write fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._errors = [error]

    def add(self, deltas: Deltas) -> None:
        if self._errors:
            raise self._errors.pop()
        super().add(deltas)


def _writer(book: Book) -> CounterWriter:
    return CounterWriter(cast(Counters, cast(Any, book)))


def _one() -> Deltas:
    deltas = Deltas()
    deltas.add("simulate", "received")
    return deltas


def test_counts_that_come_together_are_written_together() -> None:
    book = Book()
    writer = _writer(book)
    for _ in range(1_000):
        writer.add(_one())
    eventually(lambda: sum(book.writes) == 1_000, within=10)
    writer.stop()
    assert len(book.writes) < 500


def test_what_was_gathered_is_written_by_stopping() -> None:
    book = Book()
    writer = _writer(book)
    writer.add(_one())
    writer.stop()
    assert book.writes == [1]


def test_what_comes_during_the_last_write_is_written_by_stopping() -> None:
    book = SlowBook()
    writer = _writer(book)
    writer.add(_one())
    assert book.begun.wait(10)
    writer.add(_one())
    writer.stop(timeout_seconds=0)
    book.may_end.set()
    writer.stop()
    assert book.writes == [1, 1]


def test_counts_are_written_without_anything_coming_after_them() -> None:
    book = Book()
    writer = _writer(book)
    writer.add(_one())
    eventually(lambda: book.writes == [1], within=10)
    writer.stop()


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ValueError("a bug")])
def test_a_write_that_fails_is_said_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    book = ClosedBook(error)
    writer = _writer(book)
    with caplog.at_level(logging.WARNING):
        writer.add(_one())
        eventually(lambda: "some events were not counted" in caplog.text, within=10)
        writer.add(_one())
        eventually(lambda: book.writes == [1], within=10)
    writer.stop()


def test_no_counts_start_no_thread() -> None:
    writer = _writer(Book())
    writer.add(Deltas())
    assert writer._thread is None
    writer.stop()
