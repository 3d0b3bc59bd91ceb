"""Questions to MongoDB, which must not hold up the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from service.breaker import Breaker
from service.errors import BacklogFull, StoreUnavailable, UnknownEvent
from service.mongo import Document, deadline
from service.store import JobStore
from service.together import Together

Params = ParamSpec("Params")
Result = TypeVar("Result")
_MOST_READ_TOGETHER = 100
_RETRY_SECONDS = 2


class Lookup:
    """Reads events by id; those asked for at the same time are read together."""

    def __init__(
        self, store: JobStore, breaker: Breaker, *, timeout_seconds: float, slow_seconds: float
    ) -> None:
        self._store, self._breaker = store, breaker
        self._reads: Together[str, Document] = Together(
            self._read,
            name="lookup",
            on_slow=breaker.doubt,
            slow_seconds=slow_seconds,
            timeout_seconds=timeout_seconds,
            most_together=_MOST_READ_TOGETHER,
        )

    async def get(self, event_id: str) -> Document:
        """Raises `UnknownEvent`, `StoreUnavailable`."""
        if self._breaker.is_open:
            raise StoreUnavailable("MongoDB is unavailable")
        return await self._reads.ask(event_id)

    def stop(self) -> None:
        self._reads.stop()

    def _read(self, event_ids: Sequence[str]) -> Sequence[Document | UnknownEvent]:
        if self._breaker.is_open:
            raise StoreUnavailable("MongoDB is unavailable")
        try:
            return self._store.get_many(event_ids)
        except StoreUnavailable as error:
            self._breaker.note(error)
            raise


class Offload:
    """So many calls at once, each on a thread of its own; `breaker` refuses while MongoDB is known
    to be down.

    What a call asks MongoDB is bounded by `seconds` from when it begins. That it had to wait for a
    thread says nothing about MongoDB; one that waited longer than `patience_seconds` is refused.
    """

    def __init__(
        self,
        breaker: Breaker,
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
        self._refuse_while_down()
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
        self._refuse_while_down()
        if time.monotonic() - asked_at > self._patience_seconds:
            raise self._full()
        try:
            with deadline(self._seconds):
                return act()
        except StoreUnavailable as error:
            self._breaker.note(error)
            raise

    def _refuse_while_down(self) -> None:
        if self._breaker.is_open:
            raise StoreUnavailable("MongoDB is unavailable")

    def _full(self) -> BacklogFull:
        return BacklogFull(f"too many {self._name} are under way", _RETRY_SECONDS)
