"""The Dramatiq broker: hints go to their lanes, all other messages to Dramatiq's own lists.

Those of actors that are no event types (dead letters, say) keep Dramatiq's keys in Redis: a list of
ids and a hash with the messages by queue, and the ids that each broker has fetched and not acked.

A message that should arrive later is not sent at all: its job waits in MongoDB until it is due.
There are therefore no delay queues, and none of their dangers (messages held in a worker's memory,
stuck after a lost connection, Dramatiq issue 527).
"""

from __future__ import annotations

import logging
import threading
import time
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
from service.ids import is_id
from service.job import Hint, Priority
from service.queue.former import FormerQueues
from service.queue.junk import put_aside
from service.queue.lanes import Lanes

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
    """`consumer_factory(broker, queue, prefetch, timeout_ms)` makes what Dramatiq consumes with;
    `is_event_type(actor_name)` tells which messages are hints."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        window: int = 10_000,
        middleware: Sequence[Middleware] = (),
        consumer_factory: Callable[..., dramatiq.Consumer] | None = None,
        is_event_type: Callable[[str], object] = bool,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            client=client, middleware=list(middleware), maintenance_chance=0
        )
        self.lanes = Lanes(client, self.namespace, window)
        self.former = FormerQueues(client, self.namespace)
        self._is_event_type = is_event_type
        self._consumer_factory = consumer_factory
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
        """Sends one message, after `delay` milliseconds if given (what `Retries` asks for); one of
        an event type to its lane.

        A delayed message lives in this process and never for longer than a minute; MongoDB knows
        when its job is due, and the sweep sends what got lost.
        """
        hint = self._hint(message)
        if (gathered := getattr(self._gathering, "messages", None)) is not None:
            gathered.append((message, delay))
        elif delay is not None:
            self.enqueue_later([(message, delay)])
        elif hint is None:
            return super().enqueue(message)
        else:
            self.emit_before("enqueue", message, delay)
            self.lanes.push([hint])
            self.emit_after("enqueue", message, delay)
        return message

    def _hint(self, message: dramatiq.Message[Any]) -> Hint | None:
        """The hint that the message is; None where it is a message of another kind."""
        job_id = message.args[0] if len(message.args) == 1 else None
        if not isinstance(job_id, str) or not is_id(job_id):
            return None
        if not self._is_event_type(message.actor_name):
            return None
        priority = message.options.get("priority", Priority.NORMAL)
        return Hint(job_id, message.actor_name, message.queue_name, priority)

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
        self._later.add_many([(self._hint(m) or m, (delay or 0) / 1000) for m, delay in messages])
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
        """Sends the hints of many jobs to their lanes, in one round trip; how many found room.

        Raises `redis.RedisError`.
        """
        return self.lanes.push(hints)

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

    def wait_for_message(self, client: redis.Redis, queue: str, seconds: float) -> bool:
        """Blocks until the queue has a message, which stays where it is, or the time is over;
        whether there is one. `client`: a connection of the caller's own.

        Raises `redis.RedisError`.
        """
        name = self.list_keys(queue)[1]
        return client.blmove(name, name, int(seconds), "LEFT", "LEFT") is not None

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

    def has_messages(self, queue: str) -> bool:
        """Whether messages that nobody has fetched wait in the queue."""
        return bool(self.client.llen(self.list_keys(queue)[1]))

    def put_aside(self, queue: str, messages: Sequence[bytes]) -> None:
        """Puts junk where Dramatiq keeps its dead messages. Raises `redis.RedisError`."""
        put_aside(self.client, f"{self.namespace}:", queue, messages)

    def give_back_of_the_dead(self, now_ms: int) -> None:
        """Puts back what brokers that are gone had fetched and never acked.

        Dramatiq's own maintenance, at a time of our choosing: it compares the callers' clocks, so
        a clock that is off costs duplicates, which are harmless. Raises `redis.RedisError`.
        """
        for queue in self.get_declared_queues():
            args: list[Any] = ["maintain", now_ms, queue, self.broker_id, self.heartbeat_timeout]
            args += [self.dead_message_ttl, 1, 1_000]
            self.scripts["dispatch"](keys=[self.namespace], args=args)

    def loose_keys(self, queue: str) -> set[bytes]:
        """The keys of messages that are in nobody's hands, which a consumer of a former version
        leaves when it dies right after it woke. Raises `redis.RedisError`."""
        kept = self.stored_keys(queue)  # before the others: a message only ever moves on
        listed = {k for name in self.list_keys(queue) for k in self.client.lrange(name, 0, -1)}
        return set(kept) - listed - self.unacked_keys(queue) if len(kept) > len(listed) else set()

    def queues_with_messages(self) -> list[str]:
        """The queues that have messages in Dramatiq's own keys, known to a process or not. Raises
        `redis.RedisError`."""
        prefix, suffix = f"{self.namespace}:", ".msgs"
        keys = self.client.scan_iter(match=f"{prefix}*{suffix}", count=1_000)
        names = {bytes(key).decode().removeprefix(prefix).removesuffix(suffix) for key in keys}
        return sorted(name for name in names if not name.endswith(".XQ"))

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
