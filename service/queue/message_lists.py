"""Dramatiq's own lists: the messages of actors that are no event types (dead letters, say).

A queue has a list of ids and a hash with the messages; what a broker has fetched and not acked
stands in a set of ids, and comes back when that broker is gone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

_SCRIPTS = Path(__file__).parent / "lua"
_MOST_RETURNED = 1_000
"""So many messages Dramatiq's script puts back at a time."""


@dataclass(frozen=True, slots=True)
class MessageKeys:
    """Dramatiq's keys in Redis."""

    namespace: str

    def lists(self, queue: str) -> list[str]:
        """The lists of message ids: high, normal (Dramatiq's own key), low."""
        base = f"{self.namespace}:{queue}"
        return [f"{base}:high", base, f"{base}:low"]

    def messages(self, queue: str) -> str:
        return f"{self.namespace}:{queue}.msgs"

    def acks(self, broker_id: str, queue: str) -> str:
        return f"{self.namespace}:__acks__.{broker_id}.{queue}"

    @property
    def heartbeats(self) -> str:
        return f"{self.namespace}:__heartbeats__"


class MessageLists:
    """Every method raises `redis.RedisError`."""

    def __init__(self, broker: RedisBroker) -> None:
        self._broker, self._client = broker, broker.client
        self.keys = MessageKeys(broker.namespace)
        self._fetch_script, self._ack_script = self._script("fetch"), self._script("ack")

    def _script(self, name: str) -> Any:
        return self._client.register_script((_SCRIPTS / f"{name}.lua").read_bytes())

    def append(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Adds messages to the ends of their queues, all or none, in one round trip."""
        pipeline = self._client.pipeline(transaction=True)
        for message in messages:
            key = str(uuid4())
            data = message.copy(options={"redis_message_id": key}).encode()
            pipeline.hset(self.keys.messages(message.queue_name), key, data)
            pipeline.rpush(self.keys.lists(message.queue_name)[1], key)
        pipeline.execute()

    def fetch(self, queue: str, most: int) -> list[tuple[bytes, bytes | None]]:
        """Takes up to `most` messages: (id, message), None where it has no content. They are this
        broker's until it acks them."""
        keys = [self.keys.messages(queue), *self.keys.lists(queue)]
        keys += [self.keys.acks(self._broker.broker_id, queue), self.keys.heartbeats]
        args = [self._broker.broker_id, int(time.time() * 1000), most]
        flat = self._fetch_script(keys=keys, args=args)
        return list(zip(flat[::2], flat[1::2], strict=True))

    def wait(self, client: redis.Redis, queue: str, seconds: float) -> bool:
        """Blocks until the queue has a message, which stays where it is, or the time is over;
        whether there is one. `client`: a connection of the caller's own."""
        name = self.keys.lists(queue)[1]
        return client.blmove(name, name, int(seconds), "LEFT", "LEFT") is not None

    def ack(self, queue: str, ids: Sequence[str | bytes]) -> None:
        """Removes messages that this broker fetched; others stay."""
        keys = [self.keys.messages(queue), self.keys.acks(self._broker.broker_id, queue)]
        self._ack_script(keys=keys, args=list(ids))

    def has_messages(self, queue: str) -> bool:
        """Whether messages that nobody has fetched wait in the queue."""
        return bool(self._client.llen(self.keys.lists(queue)[1]))

    def queues(self) -> list[str]:
        """The queues that have messages, known to a process or not."""
        prefix, suffix = f"{self.keys.namespace}:", ".msgs"
        found = self._client.scan_iter(match=f"{prefix}*{suffix}", count=1_000)
        names = {bytes(key).decode().removeprefix(prefix).removesuffix(suffix) for key in found}
        return sorted(name for name in names if not name.endswith(".XQ"))

    def stored_ids(self, queue: str) -> list[bytes]:
        """The ids of all messages of the queue, fetched or not."""
        ids: Any = self._client.hkeys(self.keys.messages(queue))
        return list(ids)

    def return_from_the_dead(self, now_ms: int) -> None:
        """Puts back what brokers that are gone had fetched and never acked.

        Dramatiq's own maintenance, at a time of our choosing: it compares the callers' clocks, so
        a clock that is off costs duplicates, which are harmless.
        """
        broker = self._broker
        for queue in broker.get_declared_queues():
            args: list[Any] = ["maintain", now_ms, queue, broker.broker_id]
            args += [broker.heartbeat_timeout, broker.dead_message_ttl, 1, _MOST_RETURNED]
            broker.scripts["dispatch"](keys=[broker.namespace], args=args)
