"""Calls on threads: bounded, each kind by itself, and what a failure of one says of MongoDB."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from service.concurrency.circuit_breaker import CircuitBreaker
from service.errors import BacklogFull, StoreLate, StoreUnavailable, StoreUnreachable
from service.web.blocking_pool import BlockingPool
from tests.factories import eventually


def never() -> None:
    raise OSError("down")


@pytest.fixture
def breaker() -> Iterator[CircuitBreaker]:
    """Of a server that is well until it is found unreachable."""
    breaker = CircuitBreaker("a server", never, check=lambda: None)
    yield breaker
    breaker.stop()


def make_pool(
    breaker: CircuitBreaker, *, most_waiting: int = 10, patience: float = 5
) -> BlockingPool:
    return BlockingPool(
        breaker,
        name="calls",
        seconds=5,
        threads=1,
        most_waiting=most_waiting,
        patience_seconds=patience,
    )


def test_what_waits_for_a_thread_is_bounded_and_says_when_to_come_again(
    breaker: CircuitBreaker,
) -> None:
    async def main() -> None:
        pool, may = make_pool(breaker, most_waiting=1), threading.Event()
        asked = [asyncio.ensure_future(pool.run(may.wait, 5)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BacklogFull) as refused:
            await pool.run(may.wait, 5)
        assert refused.value.retry_after_seconds >= 1
        may.set()
        assert await asyncio.gather(*asked) == [True, True]
        assert await pool.run(lambda: 1) == 1
        assert not breaker.is_open
        pool.stop()

    asyncio.run(main())


def test_who_waited_too_long_for_a_thread_is_refused_and_nobody_else(
    breaker: CircuitBreaker,
) -> None:
    async def main() -> None:
        pool, may = make_pool(breaker, patience=0.05), threading.Event()
        first = asyncio.ensure_future(pool.run(may.wait, 5))
        second = asyncio.ensure_future(pool.run(lambda: 2))
        await asyncio.sleep(0.1)
        may.set()
        assert await first
        with pytest.raises(BacklogFull):
            await second
        assert await pool.run(lambda: 3) == 3
        assert not breaker.is_open
        pool.stop()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "opens"),
    [(StoreUnreachable("gone"), True), (StoreLate("slow"), False), (StoreUnavailable("no"), False)],
)
def test_only_an_unreachable_server_stops_all_others(
    breaker: CircuitBreaker, error: StoreUnavailable, opens: bool
) -> None:
    def fail() -> None:
        raise error

    async def main() -> None:
        pool = make_pool(breaker)
        with pytest.raises(type(error)):
            await pool.run(fail)
        eventually(lambda: not breaker._in_doubt)
        assert breaker.is_open == opens
        pool.stop()

    asyncio.run(main())


def test_what_waits_while_the_server_goes_away_is_not_tried(breaker: CircuitBreaker) -> None:
    async def main() -> None:
        pool, may, tried = make_pool(breaker), threading.Event(), threading.Event()
        first = asyncio.ensure_future(pool.run(may.wait, 5))
        second = asyncio.ensure_future(pool.run(tried.set))
        await asyncio.sleep(0)
        breaker.note(StoreUnreachable("gone"))
        may.set()
        assert await first
        with pytest.raises(StoreUnavailable):
            await second
        assert not tried.is_set()
        pool.stop()

    asyncio.run(main())
