"""The Dramatiq broker: Dramatiq's own keys in Redis, messages in and out by the batch.

A queue is three lists (high, normal, low) and holds a bounded window of messages, however long the
backlog is. What finds no room sets the queue's *overflow*: workers that find the lists empty then
claim straight from MongoDB, oldest first, until nothing is left there.

A message that should arrive later is not sent at all: its job waits in MongoDB until it is due.
There are therefore no delay queues, and none of their dangers (messages held in a worker's memory,
stuck after a lost connection, Dramatiq issue 527).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware

from service.concurrency.delay_queue import DelayQueue
from service.job import Hint, Priority
from service.queue.messages import encoded_hint

_log = logging.getLogger(__name__)
_SCRIPTS = Path(__file__).parent / "lua"
DEAD_LETTER_QUEUE = DEAD_LETTER_ACTOR = "dead_letter"
FINISHED_CHANNEL = "pulsequeue:finished"

Delayed = tuple[dramatiq.Message[Any], int | None]
"""A message, and in how many milliseconds it should arrive; None: now."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a look into a queue gave: (id, message) pairs, and whether MongoDB holds more."""

    messages: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    overflow: bool = False


class PulseBroker(RedisBroker):
    """`consumer_factory(broker, queue, prefetch, timeout_ms)` makes what Dramatiq consumes with."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        window: int = 10_000,
        middleware: Sequence[Middleware] = (),
        consumer_factory: Callable[..., dramatiq.Consumer] | None = None,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            client=client, middleware=list(middleware), maintenance_chance=0
        )
        self._window = window
        self._consumer_factory = consumer_factory
        self._enqueue_script = self._script("enqueue")
        self._fetch_script = self._script("fetch")
        self._ack_script = self._script("ack")
        self._give_back_script = self._script("give_back")
        self._later: DelayQueue[Hint | dramatiq.Message[Any]] = DelayQueue(self._enqueue_due)
        self._gathering = threading.local()

    def _script(self, name: str) -> Any:
        return self.client.register_script((_SCRIPTS / f"{name}.lua").read_bytes())

    @property
    def consumer_class(self) -> Any:
        return self._consumer_factory or super().consumer_class

    def declare_queue(self, queue_name: str) -> None:
        """Declares the queue, without the delay queue that Dramatiq would add."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    # out

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        """Sends one message, after `delay` milliseconds if given (what `Retries` asks for).

        A delayed message lives in this process and never for longer than a minute; MongoDB knows
        when its job is due, and the sweep sends what got lost.
        """
        if (gathered := getattr(self._gathering, "messages", None)) is not None:
            gathered.append((message, delay))
        elif delay is None:
            return super().enqueue(message)
        else:
            self.enqueue_later([(message, delay)])
        return message

    @contextmanager
    def gathering(self) -> Iterator[list[Delayed]]:
        """What this thread enqueues within is not sent, but gathered in the list."""
        gathered: list[Delayed] = []
        self._gathering.messages = gathered
        try:
            yield gathered
        finally:
            self._gathering.messages = None

    def enqueue_later(self, messages: Sequence[Delayed]) -> None:
        """As `enqueue` with a delay, for many."""
        for message, delay in messages:
            self.emit_before("enqueue", message, delay)
        self._later.add_many([(_hint(m) or m, (delay or 0) / 1000) for m, delay in messages])
        for message, delay in messages:
            self.emit_after("enqueue", message, delay)

    def enqueue_together(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """As `enqueue` without a delay, for many: one round trip. Raises `redis.RedisError`."""
        pipeline = self.client.pipeline(transaction=True)
        for message in messages:
            self.emit_before("enqueue", message, None)
            key = str(uuid4())
            data = message.copy(options={"redis_message_id": key}).encode()
            pipeline.hset(self.messages_key(message.queue_name), key, data)
            pipeline.rpush(self.list_keys(message.queue_name)[1], key)
        pipeline.execute()
        for message in messages:
            self.emit_after("enqueue", message, None)

    def hint_later(self, hint: Hint, seconds: float) -> None:
        self._later.add(hint, max(0.0, seconds))

    def enqueue_many(self, hints: Sequence[Hint]) -> int:
        """Sends the messages of many jobs, one round trip a queue; how many found room.

        Raises `redis.RedisError`.
        """
        by_queue: dict[str, list[Hint]] = defaultdict(list)
        for hint in hints:
            by_queue[hint.queue].append(hint)
        return sum(self._enqueue_to(queue, group) for queue, group in by_queue.items())

    def _enqueue_to(self, queue: str, hints: list[Hint]) -> int:
        args: list[Any] = [self._window]
        for hint in hints:
            args += (_list_number(hint.priority), *encoded_hint(hint))
        keys = [self.messages_key(queue), *self.list_keys(queue), self.overflow_key(queue)]
        return int(self._enqueue_script(keys=keys, args=args))

    def _enqueue_due(self, due: Sequence[Hint | dramatiq.Message[Any]]) -> None:
        try:
            self.enqueue_many([item for item in due if isinstance(item, Hint)])
            for item in due:
                if isinstance(item, dramatiq.Message):
                    super().enqueue(item)
        except redis.RedisError as error:
            _log.warning("%d messages are left to the sweep: %s", len(due), error)

    # in

    def fetch(self, queue: str, most: int, first: Sequence[int], popped: bytes = b"") -> Fetched:
        """Takes up to `most` messages; `first`: how many of high, normal, low before any other.

        Raises `redis.RedisError`.
        """
        keys = [
            self.messages_key(queue),
            *self.list_keys(queue),
            self.overflow_key(queue),
            self.acks_key(queue),
            f"{self.namespace}:__heartbeats__",
        ]
        now_ms = int(time.time() * 1000)
        overflow, *flat = self._fetch_script(
            keys=keys, args=[self.broker_id, now_ms, *first, most, popped]
        )
        return Fetched(list(zip(flat[::2], flat[1::2], strict=True)), bool(overflow))

    def ack_many(self, pipeline: Any, queue: str, ids: Sequence[str | bytes]) -> None:
        """Adds to the pipeline the ack of messages that this broker fetched."""
        keys = [self.messages_key(queue), self.acks_key(queue)]
        self._ack_script(keys=keys, args=list(ids), client=pipeline)

    def give_back(self, queue: str, priority: str, ids: Sequence[bytes]) -> None:
        """Puts messages that this broker fetched back to where they came from.

        Raises `redis.RedisError`.
        """
        keys = [self.list_keys(queue)[_list_number(priority) - 1], self.acks_key(queue)]
        self._give_back_script(keys=keys, args=list(ids))

    def forget_many(self, pipeline: Any, queue: str, ids: Sequence[str | bytes]) -> None:
        """Adds to the pipeline the removal of messages that were popped off their list without
        `fetch`, which is their ack."""
        pipeline.hdel(self.messages_key(queue), *ids)

    def stored_keys(self, queue: str) -> list[bytes]:
        """The keys of all messages of the queue, wherever they are."""
        keys: Any = self.client.hkeys(self.messages_key(queue))
        return list(keys)

    def unacked_keys(self, queue: str) -> set[bytes]:
        """The keys of messages that some broker has fetched and not acked."""
        brokers: Any = self.client.zrange(f"{self.namespace}:__heartbeats__", 0, -1)
        names = [f"{self.namespace}:__acks__.{b.decode()}.{queue}" for b in brokers]
        keys: Any = self.client.sunion(names) if names else ()
        return set(keys)

    def probe(self) -> None:
        """Raises `redis.RedisError` where Redis gives no answer or takes no writes: one that is out
        of memory answers a PING, and lets nothing be enqueued."""
        self.client.set(f"{self.namespace}:__probe__", b"", px=60_000)

    def has_overflow(self, queue: str) -> bool:
        """Whether MongoDB holds jobs of the queue that have no message."""
        return bool(self.client.exists(self.overflow_key(queue)))

    def set_overflow(self, queue: str) -> None:
        """Says that MongoDB may hold jobs of the queue that have no message."""
        self.client.set(self.overflow_key(queue), "1")

    def clear_overflow(self, queue: str) -> None:
        """Says that MongoDB holds nothing more of the queue that has no message."""
        self.client.delete(self.overflow_key(queue))

    def close(self) -> None:
        self._later.stop()
        self.client.close()

    # keys

    def list_keys(self, queue: str) -> list[str]:
        """The lists of message ids: high, normal (Dramatiq's own key), low."""
        base = f"{self.namespace}:{queue}"
        return [f"{base}:high", base, f"{base}:low"]

    def messages_key(self, queue: str) -> str:
        return f"{self.namespace}:{queue}.msgs"

    def acks_key(self, queue: str) -> str:
        return f"{self.namespace}:__acks__.{self.broker_id}.{queue}"

    def overflow_key(self, queue: str) -> str:
        return f"{self.namespace}:{queue}.overflow"


def _list_number(priority: str) -> int:
    return 1 if priority == Priority.HIGH else 3 if priority == Priority.LOW else 2


def _hint(message: dramatiq.Message[Any]) -> Hint | None:
    """The hint that the message is; None where it is a message of another kind."""
    if len(message.args) != 1 or not isinstance(message.args[0], str):
        return None
    return Hint(
        message.args[0],
        message.actor_name,
        message.queue_name,
        message.options.get("priority", Priority.NORMAL),
    )
