"""Back-pressure, also where it can't be counted what waits."""

from __future__ import annotations

import pytest

from service.errors import BacklogFull, StoreUnavailable
from service.web import backlog
from service.web.backlog import Backlog
from tests.factories import eventually


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(backlog, "_FRESH_SECONDS", 0.0)


def test_without_any_count_no_more_than_the_limit_is_taken() -> None:
    def count() -> int:
        raise StoreUnavailable("too many to count")

    waiting = Backlog(count, 5)
    for _ in range(5):
        waiting.check()
    with pytest.raises(BacklogFull):
        waiting.check()


def test_the_last_count_is_carried_on_where_there_is_no_new_one() -> None:
    counts = iter([7])

    def count() -> int:
        try:
            return next(counts)
        except StopIteration:
            raise StoreUnavailable("too many to count") from None

    waiting = Backlog(count, 10)
    waiting.check()
    eventually(lambda: waiting._count.known.value)
    for _ in range(2):  # the first one was taken after the count began
        waiting.check()
    with pytest.raises(BacklogFull):
        waiting.check()


def test_a_count_that_has_fallen_makes_room() -> None:
    there = [5]
    waiting = Backlog(lambda: there[0], 5)

    def is_refused() -> bool:
        try:
            waiting.check()
        except BacklogFull:
            return True
        return False

    eventually(is_refused)
    there[0] = 0
    eventually(lambda: not is_refused())
