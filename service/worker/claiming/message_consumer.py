"""Messages of actors that are no event types (dead letters, say): Dramatiq's own lists and acks,
fetched by the batch, and waited for without polling."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import redis
from dramatiq.broker import Consumer, MessageProxy

from service.catalog import Catalog
from service.job import Hint
from service.queue.broker import PulseBroker
from service.store import Counters
from service.worker.claiming.inbox import Junk, count_junk, hint_of_message, read_message

_log = logging.getLogger(__name__)
_MOST = 64
_BLOCK_SECONDS = 5.0
_PAUSE_SECONDS = 0.25


class MessageConsumer(Consumer):
    """Yields messages, and None when there is nothing now. `client`: a connection of its own, which
    others may break off to wake it.

    Hints that a former version sent to such a queue go to their lanes.
    """

    def __init__(
        self,
        broker: PulseBroker,
        queue: str,
        catalog: Catalog,
        counters: Counters,
        *,
        client: redis.Redis,
        draining: threading.Event,
    ) -> None:
        self._broker, self._queue, self._catalog = broker, queue, catalog
        self._counters, self._client, self._draining = counters, client, draining
        self._ready: deque[MessageProxy] = deque()
        self._rng = random.Random()

    def __next__(self) -> MessageProxy | None:
        if not self._ready:
            try:
                self._refill()
            except redis.RedisError as error:
                if not self._draining.is_set():
                    _log.warning("no messages can be taken: %s", error)
                    self._draining.wait(self._rng.uniform(_PAUSE_SECONDS, 4 * _PAUSE_SECONDS))
        return self._ready.popleft() if self._ready else None

    def _refill(self) -> None:
        if self._draining.is_set():
            threading.Event().wait(_PAUSE_SECONDS)
            return
        if not self._fetch():
            self._broker.lists.wait(self._client, self._queue, _BLOCK_SECONDS)
            self._fetch()

    def _fetch(self) -> bool:
        """Takes what there is; whether there was anything."""
        found = self._broker.lists.fetch(self._queue, _MOST)
        hints: dict[bytes, Hint] = {}
        for message_id, data in found:
            if (hint := hint_of_message(data, self._catalog)) is not None:
                hints[message_id] = hint
            else:
                self._take(message_id, data)
        if hints:
            self._broker.lanes.push(list(hints.values()))
            self._broker.lists.ack(self._queue, list(hints))
        return bool(found)

    def _take(self, message_id: bytes, data: bytes | None) -> None:
        try:
            message = read_message(message_id, data, self._queue, self._broker, self._catalog)
        except Junk as junk:
            extra = {"redis_message_id": repr(message_id)}
            _log.warning("a message is put aside: it %s", junk, extra=extra)
            self._broker.do_nack(self._queue, message_id)
            count_junk(self._counters, 1)
        else:
            self._ready.append(message)

    # Dramatiq asks for these when a message is processed; those of event types are no longer in
    # Redis by then.

    def ack(self, message: MessageProxy) -> None:
        self._done(message, "ack")

    def nack(self, message: MessageProxy) -> None:
        self._done(message, "nack")

    def _done(self, message: MessageProxy, command: str) -> None:
        if self._catalog.get(message.actor_name) is not None:
            return
        try:
            getattr(self._broker, f"do_{command}")(self._queue, message.options["redis_message_id"])
        except redis.RedisError as error:
            _log.warning("a late %s costs a duplicate: %s", command, error)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Returns messages to their list; jobs are given back through MongoDB."""
        others = [m for m in messages if self._catalog.get(m.actor_name) is None]
        ids: list[Any] = [m.options["redis_message_id"] for m in others]
        try:
            if ids:
                self._broker.do_requeue(self._queue, *ids)
        except redis.RedisError as error:  # raised, it would end Dramatiq's consumer thread
            _log.warning("%d messages stay unacked: %s", len(ids), error)

    def close(self) -> None:
        self.requeue(self._ready)
        self._ready.clear()
