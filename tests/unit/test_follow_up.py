"""Counts are gathered, and none is lost by stopping."""

from __future__ import annotations

from typing import Any, cast

import pytest

from service.queue.broker import PulseBroker
from service.store import Counters, Deltas
from service.web.follow_up import FollowUp
from tests.faults.waiting import eventually

pytestmark = pytest.mark.timeout(30)


class Book:
    """Stands in for `Counters`: keeps what each write added."""

    def __init__(self) -> None:
        self.writes: list[float] = []

    def add(self, deltas: Deltas) -> None:
        if deltas:
            self.writes.append(deltas.by_document["simulate"]["received"])


def _follow_up(book: Book) -> FollowUp:
    return FollowUp(cast(PulseBroker, None), cast(Counters, cast(Any, book)))


def _one() -> Deltas:
    deltas = Deltas()
    deltas.add("simulate", "received")
    return deltas


def test_counts_that_come_together_are_written_together() -> None:
    book = Book()
    follow_up = _follow_up(book)
    for _ in range(1_000):
        follow_up.count(_one())
    eventually(lambda: sum(book.writes) == 1_000, "all are counted", within=10)
    follow_up.stop()
    assert len(book.writes) < 500


def test_what_was_gathered_is_written_by_stopping() -> None:
    book = Book()
    follow_up = _follow_up(book)
    follow_up.count(_one())
    follow_up.stop()
    assert book.writes == [1]


def test_counts_are_written_without_anything_coming_after_them() -> None:
    book = Book()
    follow_up = _follow_up(book)
    follow_up.count(_one())
    eventually(lambda: book.writes == [1], "the count is written", within=10)
    follow_up.stop()
