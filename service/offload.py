"""Questions to MongoDB, which must not hold up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from service.breaker import Breaker
from service.errors import BacklogFull, StoreUnavailable, UnknownEvent
from service.mongo import Document
from service.store import JobStore
from service.together import Together

Params = ParamSpec("Params")
Result = TypeVar("Result")
_MOST_READ_TOGETHER = 100
_THREADS = 4
_MOST_WAITING = 200


class Lookup:
    """Reads events by id; those asked for at the same time are read together."""

    def __init__(self, store: JobStore, breaker: Breaker, timeout_seconds: float) -> None:
        self._store, self._breaker = store, breaker
        self._reads: Together[str, Document] = Together(
            self._read,
            name="lookup",
            on_late=breaker.trip,
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
            self._breaker.trip(error)
            raise


class Offload:
    """A bounded number of calls at once; `breaker` refuses while MongoDB is known to be down."""

    def __init__(self, breaker: Breaker, timeout_seconds: float) -> None:
        self._breaker, self._timeout_seconds = breaker, timeout_seconds
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="offload")
        self._waiting = 0

    async def run(
        self,
        act: Callable[Params, Result],
        *args: Params.args,
        **kwargs: Params.kwargs,
    ) -> Result:
        """What `act` returns. Raises what it raises, `BacklogFull`, `StoreUnavailable`."""
        return await self._run(self._timeout_seconds, lambda: act(*args, **kwargs))

    async def run_long(self, act: Callable[[], Result]) -> Result:
        """Like `run`, for what may take as long as it takes."""
        return await self._run(None, act)

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, timeout_seconds: float | None, act: Callable[[], Result]) -> Result:
        if self._breaker.is_open:
            raise StoreUnavailable("MongoDB is unavailable")
        if self._waiting >= _MOST_WAITING:
            raise BacklogFull("too many requests wait for MongoDB", 1)
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.get_running_loop().run_in_executor(self._pool, act)
        except TimeoutError:
            late = StoreUnavailable("MongoDB gave no answer in time")
            self._breaker.trip(late)
            raise late from None
        except StoreUnavailable as error:
            self._breaker.trip(error)
            raise
        finally:
            self._waiting -= 1
