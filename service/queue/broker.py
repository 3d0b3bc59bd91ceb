"""The Dramatiq broker: hints go to their lanes, all other messages to Dramatiq's own lists.

A message that should arrive later is not sent at all: its job waits in MongoDB until it is due.
There are therefore no delay queues, and none of their dangers (messages held in a worker's memory,
stuck after a lost connection, Dramatiq issue 527).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware

from service.ids import is_id
from service.job import Hint, Priority
from service.queue.former import FormerQueues
from service.queue.lanes import Lanes
from service.queue.message_lists import MessageLists
from service.queue.outbox import Outbox

DEAD_LETTER_QUEUE = DEAD_LETTER_ACTOR = "dead_letter"
FINISHED_CHANNEL = "pulsequeue:finished"


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
        self.lists = MessageLists(self)
        self.former = FormerQueues(client, self.namespace)
        self.outbox = Outbox(self, self.lanes, self.lists, self._hint)
        self._is_event_type = is_event_type
        self._consumer_factory = consumer_factory

    @property
    def consumer_class(self) -> Any:
        return self._consumer_factory or super().consumer_class

    def declare_queue(self, queue_name: str) -> None:
        """Declares the queue, without the delay queue that Dramatiq would add."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(
        self, message: dramatiq.Message[Any], *, delay: int | None = None
    ) -> dramatiq.Message[Any]:
        """Sends one message, after `delay` milliseconds if given (what `Retries` asks for); one of
        an event type to its lane."""
        if self.outbox.gathers(message, delay):
            return message
        hint = self._hint(message)
        if delay is not None:
            self.outbox.send_later([(message, delay)])
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

    def enqueue_many(self, hints: Sequence[Hint]) -> int:
        """Sends the hints of many jobs to their lanes, in one round trip; how many found room.

        Raises `redis.RedisError`.
        """
        return self.lanes.push(hints)

    def hint_later(self, hint: Hint, seconds: float) -> None:
        self.outbox.hint_later(hint, seconds)

    def probe(self) -> None:
        """Raises `redis.RedisError` where Redis gives no answer or takes no writes: one that is out
        of memory answers a PING, and lets nothing be enqueued."""
        self.client.set(f"{self.namespace}:__probe__", b"", px=60_000)

    def close(self) -> None:
        self.outbox.stop()
        self.client.close()
