"""Accepts events: commits concurrent requests together, then hints at them.

The answer waits for MongoDB's word and never for Redis. What a client gets is one of: accepted;
known already; refused; or, where MongoDB gave no word, that nothing is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from service.clock import ServerClock
from service.concurrency.batcher import Batcher
from service.concurrency.circuit_breaker import CircuitBreaker
from service.crash import crash_point
from service.errors import BacklogFull, StoreUnavailable
from service.store import Accepted, Deltas, JobStore
from service.store.documents import hint_of
from service.store.mongo import Document
from service.store.payloads import packed_bytes
from service.web.backlog import Backlog
from service.web.counter_writer import CounterWriter
from service.web.hint_publisher import HintPublisher

_log = logging.getLogger(__name__)
_SOON = timedelta(seconds=60)


class Acceptor:
    """`accept` for the event loop; `breaker` refuses at once while MongoDB is known to be down."""

    def __init__(
        self,
        store: JobStore,
        backlog: Backlog,
        hints: HintPublisher,
        counts: CounterWriter,
        *,
        clock: ServerClock,
        breaker: CircuitBreaker,
        timeout_seconds: float,
        slow_seconds: float,
    ) -> None:
        self._store, self._backlog, self._clock = store, backlog, clock
        self._hints, self._counts = hints, counts
        self._breaker = breaker
        self._commits: Batcher[Document, Accepted] = Batcher(
            self._commit,
            name="commit",
            after=self._after,
            on_slow=breaker.doubt,
            slow_seconds=slow_seconds,
            timeout_seconds=timeout_seconds,
        )

    async def accept(self, document: Document, size: int) -> Accepted:
        """The stored event, new or known; `size`: about how many bytes it has.

        Raises `KeyReused`, `InvalidEvent` (it can't be stored), `BacklogFull`, `StoreUnavailable`.
        """
        self._backlog.check()
        self._breaker.refuse_while_open()
        return await self._commits.ask(document, max(size, packed_bytes(document)))

    async def accept_many(
        self, documents: Sequence[Document], size: int
    ) -> list[Accepted | Exception]:
        """Like `accept`, all in one go; `size` of all together; an answer or an error each."""
        if documents:
            self._backlog.check(len(documents))
        self._breaker.refuse_while_open()
        each = size // max(1, len(documents))
        asked = [self._asked(document, each) for document in documents]
        return [one if isinstance(one, Exception) else await _outcome(one) for one in asked]

    def _asked(self, document: Document, size: int) -> asyncio.Future[Accepted] | BacklogFull:
        try:
            return self._commits.ask(document, max(size, packed_bytes(document)))
        except BacklogFull as full:
            return full

    def stop(self) -> None:
        """Commits what was taken."""
        self._commits.stop()

    # on the batcher's thread

    def _commit(self, documents: Sequence[Document]) -> Sequence[Accepted | Exception]:
        crash_point("web.before_insert")
        with self._breaker.guard():
            answers = self._stored(documents)
        crash_point("web.after_insert")
        return answers

    def _stored(self, documents: Sequence[Document]) -> Sequence[Accepted | Exception]:
        """A document that can't be stored is found by halving, so that its neighbours are stored.

        Those that were stored before the error are recognised by their `_id`.
        """
        try:
            return self._store.new_jobs.accept(documents)
        except StoreUnavailable:
            raise
        except Exception as error:
            if len(documents) == 1:
                _log.warning("an event can't be stored: %s", error)
                return [error]
            half = len(documents) // 2
            return [*self._stored(documents[:half]), *self._stored(documents[half:])]

    def _after(
        self, documents: Sequence[Document], answers: Sequence[Accepted | Exception]
    ) -> None:
        fresh = [a.document for a in answers if isinstance(a, Accepted) and not a.replayed]
        self._hint(fresh)
        deltas = Deltas()
        for document in fresh:
            deltas.add(document["type"], "received")
        self._counts.add(deltas)

    def _hint(self, fresh: Sequence[Document]) -> None:
        """Whatever fails here, the sweep finds the jobs."""
        now = self._clock.now()
        self._hints.publish([hint_of(d) for d in fresh if d["next_attempt_at"] <= now])
        for document in fresh:
            wait = document["next_attempt_at"] - now
            if timedelta(0) < wait <= _SOON:
                self._hints.publish_later(hint_of(document), wait.total_seconds())


async def _outcome(future: asyncio.Future[Accepted]) -> Accepted | Exception:
    try:
        return await future
    except Exception as error:
        return error
