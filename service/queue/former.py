"""Hints as processes of a former version send them: in Dramatiq's own lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from service.queue.junk import put_aside
from service.queue.message_lists import MessageKeys

_SCRIPT = Path(__file__).parent / "lua" / "adopt.lua"


def job_id_of(message_id: bytes) -> str:
    """The job at which a message with this id in Redis hints."""
    return message_id.partition(b".")[0].decode(errors="replace")


class FormerQueues:
    """Every method raises `redis.RedisError`."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._keys = client, MessageKeys(namespace)
        self._prefix = f"{namespace}:"
        self._script = client.register_script(_SCRIPT.read_text())

    def take(self, queues: Sequence[str], most: int) -> list[tuple[str, bytes | None]]:
        """Takes up to `most` messages off these queues, for good: (queue, message), None where it
        had no content. One question where there are none."""
        flat: Any = self._script(args=[self._prefix, most, *queues]) if queues else []
        return [(name.decode(), data) for name, data in zip(flat[::2], flat[1::2], strict=True)]

    def put_aside(self, queue: str, messages: Sequence[bytes]) -> None:
        """Puts junk where Dramatiq keeps its dead messages."""
        put_aside(self._client, self._prefix, queue, messages)

    def orphans(self, queue: str) -> set[bytes]:
        """The ids of messages that are in nobody's hands: a consumer of a former version leaves
        them when it dies right after it woke."""
        # before the others: a message only ever moves on
        stored: Any = self._client.hkeys(self._keys.messages(queue))
        listed = {i for name in self._keys.lists(queue) for i in self._client.lrange(name, 0, -1)}
        return set(stored) - listed - self._unacked(queue) if len(stored) > len(listed) else set()

    def _unacked(self, queue: str) -> set[bytes]:
        """The ids of messages that some broker has fetched and not acked."""
        brokers: Any = self._client.zrange(self._keys.heartbeats, 0, -1)
        names = [self._keys.acks(broker.decode(), queue) for broker in brokers]
        ids: Any = self._client.sunion(names) if names else ()
        return set(ids)

    def forget(self, queue: str, ids: Sequence[bytes]) -> None:
        """Removes messages that are on no list."""
        self._client.hdel(self._keys.messages(queue), *ids)
