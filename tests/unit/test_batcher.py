"""Answering concurrent requests together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from service.concurrency.batcher import Batcher
from service.errors import BacklogFull, StoreUnavailable
from tests.factories import eventually


class Doubler:
    """Doubles numbers, as soon as it may; remembers its batches. Negative ones fail."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.batches: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.may.wait(10)
        self.batches.append(list(numbers))
        return [ValueError(n) if n < 0 else 2 * n for n in numbers]


def doubling(act: Doubler, **options: float) -> Batcher[int, int]:
    made: Batcher[int, int] = Batcher(act, name="test", timeout_seconds=5, **options)  # type: ignore[arg-type]
    return made


def test_each_gets_its_own_answer() -> None:
    async def main() -> None:
        doubler = doubling(Doubler())
        assert await asyncio.gather(*map(doubler.ask, range(100))) == [2 * n for n in range(100)]
        doubler.stop()

    asyncio.run(main())


def test_what_comes_meanwhile_is_one_batch() -> None:
    async def main() -> None:
        act = Doubler()
        doubler = doubling(act)
        act.may.clear()
        first = doubler.ask(0)
        await asyncio.to_thread(eventually, doubler._queue.empty)
        others = [doubler.ask(n) for n in range(1, 50)]
        act.may.set()
        await asyncio.gather(first, *others)
        assert act.batches == [[0], list(range(1, 50))]
        doubler.stop()

    asyncio.run(main())


def test_a_batch_is_bounded() -> None:
    async def main() -> None:
        act = Doubler()
        doubler = doubling(act, most_together=10)
        await asyncio.gather(*map(doubler.ask, range(95)))
        assert max(map(len, act.batches)) <= 10
        doubler.stop()

    asyncio.run(main())


def test_large_ones_are_not_all_taken_together() -> None:
    async def main() -> None:
        act = Doubler()
        doubler = doubling(act, most_bytes=100)
        act.may.clear()
        asked = [doubler.ask(n, size=40) for n in range(10)]
        act.may.set()
        await asyncio.gather(*asked)
        assert max(map(len, act.batches)) <= 3
        doubler.stop()

    asyncio.run(main())


def test_one_error_is_nobody_elses() -> None:
    async def main() -> None:
        doubler = doubling(Doubler())
        answers = await asyncio.gather(*map(doubler.ask, (1, -1, 2)), return_exceptions=True)
        assert [answers[0], answers[2]] == [2, 4]
        assert isinstance(answers[1], ValueError)
        doubler.stop()

    asyncio.run(main())


def test_what_raises_fails_all_and_the_next_are_answered() -> None:
    calls = iter([StoreUnavailable("gone"), None])

    def act(numbers: Sequence[int]) -> Sequence[int | Exception]:
        if (error := next(calls)) is not None:
            raise error
        return numbers

    async def main() -> None:
        both: Batcher[int, int] = Batcher(act, name="test", timeout_seconds=5)
        with pytest.raises(StoreUnavailable):
            await both.ask(1)
        assert await both.ask(2) == 2
        both.stop()

    asyncio.run(main())


def test_what_follows_may_fail_without_harm() -> None:
    def after(_numbers: Sequence[int], _answers: Sequence[int | Exception]) -> None:
        raise RuntimeError("after all")

    async def main() -> None:
        doubler: Batcher[int, int] = Batcher(Doubler(), name="test", timeout_seconds=5, after=after)
        assert [await doubler.ask(n) for n in range(3)] == [0, 2, 4]
        doubler.stop()

    asyncio.run(main())


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    async def main() -> None:
        act, slow = Doubler(), threading.Event()
        act.may.clear()
        doubler: Batcher[int, int] = Batcher(
            act, name="test", timeout_seconds=0.6, on_slow=slow.set, slow_seconds=0.1
        )
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await doubler.ask(1)
        assert slow.is_set()
        act.may.set()
        assert await doubler.ask(2) == 4
        doubler.stop()

    asyncio.run(main())


def test_too_many_are_refused() -> None:
    async def main() -> None:
        act = Doubler()
        act.may.clear()
        doubler = doubling(act, most_waiting=10)
        asked = [doubler.ask(n) for n in range(10)]
        with pytest.raises(BacklogFull):
            doubler.ask(11)
        act.may.set()
        await asyncio.gather(*asked)
        assert await doubler.ask(12) == 24
        doubler.stop()

    asyncio.run(main())


def test_who_has_gone_is_not_acted_for() -> None:
    async def main() -> None:
        act = Doubler()
        doubler = doubling(act)
        act.may.clear()
        first = doubler.ask(0)
        await asyncio.to_thread(eventually, doubler._queue.empty)
        gone, there = doubler.ask(1), doubler.ask(2)
        gone.cancel()
        act.may.set()
        await asyncio.gather(first, there)
        assert act.batches == [[0], [2]]
        doubler.stop()

    asyncio.run(main())


def test_stopping_finishes_what_was_taken() -> None:
    async def main() -> None:
        act = Doubler()
        doubler = doubling(act)
        asked = [doubler.ask(n) for n in range(500)]
        await asyncio.to_thread(doubler.stop)
        assert await asyncio.gather(*asked) == [2 * n for n in range(500)]

    asyncio.run(main())


def test_two_event_loops_are_served() -> None:
    doubler = doubling(Doubler())

    async def ask(number: int) -> int:
        return await doubler.ask(number)

    assert asyncio.run(ask(1)) == 2
    assert asyncio.run(ask(2)) == 4
    doubler.stop()
