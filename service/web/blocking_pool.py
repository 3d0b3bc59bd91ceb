"""Calls that block, on threads: questions to MongoDB must not hold up the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from service.concurrency.circuit_breaker import CircuitBreaker
from service.errors import BacklogFull
from service.store.mongo import deadline

Params = ParamSpec("Params")
Result = TypeVar("Result")
_RETRY_SECONDS = 2


class BlockingPool:
    """So many calls at once, each on a thread of its own; `breaker` refuses while MongoDB is known
    to be down.

    What a call asks MongoDB is bounded by `seconds` from when it begins. That it had to wait for a
    thread says nothing about MongoDB; one that waited longer than `patience_seconds` is refused.
    """

    def __init__(
        self,
        breaker: CircuitBreaker,
        *,
        name: str,
        seconds: float,
        threads: int,
        most_waiting: int,
        patience_seconds: float,
    ) -> None:
        self._breaker, self._name, self._seconds = breaker, name, seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most, self._count = threads + most_waiting, 0
        self._patience_seconds = patience_seconds

    async def run(
        self,
        act: Callable[Params, Result],
        *args: Params.args,
        **kwargs: Params.kwargs,
    ) -> Result:
        """What `act` returns. Raises what it raises, `BacklogFull`, `StoreUnavailable`."""
        self._breaker.refuse_while_open()
        if self._count >= self._most:
            raise self._full()
        call = partial(self._act, time.monotonic(), lambda: act(*args, **kwargs))
        self._count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._count -= 1

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    # on the threads

    def _act(self, asked_at: float, act: Callable[[], Result]) -> Result:
        with self._breaker.guard():
            if time.monotonic() - asked_at > self._patience_seconds:
                raise self._full()
            with deadline(self._seconds):
                return act()

    def _full(self) -> BacklogFull:
        return BacklogFull(f"too many {self._name} are under way", _RETRY_SECONDS)
