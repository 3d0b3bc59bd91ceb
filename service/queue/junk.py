"""What lies in Redis and is no message that anybody here can take."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

import redis


def put_aside(client: redis.Redis, prefix: str, queue: str, messages: Sequence[bytes]) -> None:
    """Keeps them where Dramatiq keeps its dead messages, for people to look at. `prefix`: what all
    keys begin with. Raises `redis.RedisError`."""
    key, now_ms = f"{prefix}{queue}.XQ", int(time.time() * 1000)
    pipeline = client.pipeline(transaction=False)
    for message in messages:
        name = hashlib.sha1(message, usedforsecurity=False).hexdigest()
        pipeline.zadd(key, {name: now_ms})
        pipeline.hset(f"{key}.msgs", name, message)
    pipeline.execute()
