"""Reads of single events, for the event loop."""

from __future__ import annotations

from collections.abc import Sequence

from service.concurrency.batcher import Batcher
from service.concurrency.circuit_breaker import CircuitBreaker
from service.errors import UnknownEvent
from service.store import JobStore
from service.store.mongo import Document

_MOST_READ_TOGETHER = 100


class Lookup:
    """Reads events by id; those asked for at the same time are read together."""

    def __init__(
        self,
        store: JobStore,
        breaker: CircuitBreaker,
        *,
        timeout_seconds: float,
        slow_seconds: float,
    ) -> None:
        self._store, self._breaker = store, breaker
        self._reads: Batcher[str, Document] = Batcher(
            self._read,
            name="lookup",
            on_slow=breaker.doubt,
            slow_seconds=slow_seconds,
            timeout_seconds=timeout_seconds,
            most_together=_MOST_READ_TOGETHER,
        )

    async def get(self, event_id: str) -> Document:
        """Raises `UnknownEvent`, `StoreUnavailable`."""
        self._breaker.refuse_while_open()
        return await self._reads.ask(event_id)

    def stop(self) -> None:
        self._reads.stop()

    def _read(self, event_ids: Sequence[str]) -> Sequence[Document | UnknownEvent]:
        with self._breaker.guard():
            return self._store.requests.get_many(event_ids)
