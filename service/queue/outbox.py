"""What a process sends later, and what it sends together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from service.concurrency.delay_queue import DelayQueue
from service.job import Hint
from service.queue.lanes import Lanes
from service.queue.message_lists import MessageLists

_log = logging.getLogger(__name__)

_Message = dramatiq.Message[Any]
Delayed = tuple[_Message, int | None]
"""A message, and in how many milliseconds it should arrive; None: now."""


class Outbox:
    """A delayed message lives in this process and never for longer than a minute; MongoDB knows
    when its job is due, and the sweep sends what got lost."""

    def __init__(
        self,
        broker: RedisBroker,
        lanes: Lanes,
        lists: MessageLists,
        hint_of: Callable[[_Message], Hint | None],
    ) -> None:
        """`hint_of(message)`: None where it is no hint."""
        self._broker, self._lanes, self._lists, self._hint_of = broker, lanes, lists, hint_of
        self._later: DelayQueue[Hint | _Message] = DelayQueue(self._send_due)
        self._on_thread = threading.local()

    @contextmanager
    def gathering(self) -> Iterator[list[Delayed]]:
        """What this thread enqueues within is not sent, but gathered in the list."""
        gathered: list[Delayed] = []
        self._on_thread.gathered = gathered
        try:
            yield gathered
        finally:
            self._on_thread.gathered = None

    def gathers(self, message: _Message, delay: int | None) -> bool:
        """Whether this thread is gathering; then the message is gathered now."""
        gathered: list[Delayed] | None = getattr(self._on_thread, "gathered", None)
        if gathered is None:
            return False
        gathered.append((message, delay))
        return True

    def send_later(self, messages: Sequence[Delayed]) -> None:
        """As the broker's `enqueue` with a delay, for many."""
        for message, delay in messages:
            self._broker.emit_before("enqueue", message, delay)
        due = [(self._hint_of(m) or m, (delay or 0) / 1000) for m, delay in messages]
        self._later.add_many(due)
        for message, delay in messages:
            self._broker.emit_after("enqueue", message, delay)

    def hint_later(self, hint: Hint, seconds: float) -> None:
        self._later.add(hint, max(0.0, seconds))

    def send_together(self, messages: Sequence[_Message]) -> None:
        """As the broker's `enqueue` without a delay, for many that are no hints: one round trip.
        Raises `redis.RedisError`."""
        for message in messages:
            self._broker.emit_before("enqueue", message, None)
        self._lists.append(messages)
        for message in messages:
            self._broker.emit_after("enqueue", message, None)

    def _send_due(self, due: Sequence[Hint | _Message]) -> None:
        try:
            self._lanes.push([item for item in due if isinstance(item, Hint)])
            for item in due:
                if isinstance(item, dramatiq.Message):
                    RedisBroker.enqueue(self._broker, item)
        except redis.RedisError as error:
            _log.warning("%d messages are left to the sweep: %s", len(due), error)

    def stop(self) -> None:
        self._later.stop()
