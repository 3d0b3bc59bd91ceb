"""Things to do in a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from service.concurrency.delay_queue import DelayQueue
from tests.factories import eventually


class Seen:
    """What was done, and when."""

    def __init__(self) -> None:
        self.lists: list[list[str]] = []
        self.fail = False

    def __call__(self, items: Sequence[str]) -> None:
        self.lists.append(list(items))
        if self.fail:
            raise RuntimeError("as asked")

    @property
    def items(self) -> list[str]:
        return [item for items in self.lists for item in items]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def later(seen: Seen) -> Iterator[DelayQueue[str]]:
    later = DelayQueue(seen, most=5, longest_seconds=10)
    yield later
    later.stop()


def test_items_come_in_the_order_of_their_times(later: DelayQueue[str], seen: Seen) -> None:
    later.add("third", 0.15)
    later.add("first", 0.02)
    later.add("second", 0.08)
    assert eventually(lambda: len(seen.items) == 3)
    assert seen.items == ["first", "second", "third"]


def test_nothing_comes_early(later: DelayQueue[str], seen: Seen) -> None:
    began = time.monotonic()
    later.add("x", 0.1)
    eventually(lambda: seen.items)
    assert time.monotonic() - began >= 0.1


def test_an_earlier_item_wakes_who_waits_for_a_later_one(
    later: DelayQueue[str], seen: Seen
) -> None:
    later.add("far", 9)
    later.add("near", 0.01)
    assert eventually(lambda: seen.items, within=2) == ["near"]


def test_what_is_due_together_is_done_together(later: DelayQueue[str], seen: Seen) -> None:
    gate = threading.Event()

    def slow(items: Sequence[str]) -> None:
        seen(items)
        gate.wait(5)

    queue = DelayQueue(slow)
    queue.add("first", 0)
    eventually(lambda: seen.lists)
    queue.add("a", 0)
    queue.add("b", 0)
    gate.set()
    assert eventually(lambda: len(seen.lists) == 2)
    assert seen.lists[1] == ["a", "b"]
    queue.stop()


def test_what_lies_too_far_ahead_is_refused(later: DelayQueue[str]) -> None:
    assert not later.add("x", 10.1)
    assert later.add("x", 9.9)


def test_it_holds_only_so_many(later: DelayQueue[str]) -> None:
    taken = [later.add(str(i), 9) for i in range(8)]
    assert taken == [True] * 5 + [False] * 3


def test_a_failure_does_not_end_it(later: DelayQueue[str], seen: Seen) -> None:
    seen.fail = True
    later.add("bad", 0)
    eventually(lambda: seen.items)
    seen.fail = False
    later.add("good", 0)
    assert eventually(lambda: seen.items == ["bad", "good"])


def test_after_stop_nothing_is_taken_or_done(later: DelayQueue[str], seen: Seen) -> None:
    later.add("x", 0.05)
    later.stop()
    assert not later.add("y", 0)
    time.sleep(0.1)  # nothing can be polled for: nothing should happen
    assert seen.items == []


def test_many_are_added_at_once_each_with_its_own_time(later: DelayQueue[str], seen: Seen) -> None:
    assert later.add_many([("b", 0.05), ("far", 11), ("a", 0.0), ("c", 0.06)]) == 3
    assert eventually(lambda: len(seen.items) == 3)
    assert seen.items == ["a", "b", "c"]


def test_of_many_added_at_once_only_so_many_are_taken(later: DelayQueue[str]) -> None:
    assert later.add_many([(str(i), 9) for i in range(8)]) == 5


def test_many_that_come_due_one_by_one_are_done_by_few_calls(seen: Seen) -> None:
    later = DelayQueue(seen)
    later.add_many([(str(i), i / 10_000) for i in range(1_000)])
    assert eventually(lambda: len(seen.items) == 1_000)
    assert len(seen.lists) <= 30
    later.stop()
