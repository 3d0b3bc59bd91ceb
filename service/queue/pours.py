"""Which lanes have more in MongoDB than in Redis, and how far it was poured in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from service.queue.lane import Lane, LaneKeys

_SINCE_SECONDS = 10.0
"""How long pours go on from where the last one came to, before one starts from the oldest job."""


class Pours:
    """Every method raises `redis.RedisError`."""

    def __init__(self, client: redis.Redis, keys: LaneKeys) -> None:
        self._client, self._keys = client, keys

    def has_overflow(self, lane: Lane) -> bool:
        """Whether MongoDB holds jobs of the lane that have no hint."""
        return bool(self._client.exists(self._keys.of(lane, "overflow")))

    def with_overflow(self, lanes: Sequence[Lane]) -> set[Lane]:
        """Those of the lanes that have an overflow; in one round trip."""
        if not lanes:
            return set()
        flags: Any = self._client.mget([self._keys.of(lane, "overflow") for lane in lanes])
        return {lane for lane, flag in zip(lanes, flags, strict=True) if flag is not None}

    def set_overflow(self, lane: Lane) -> None:
        """Says that MongoDB may hold jobs of the lane that have no hint."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.set(self._keys.of(lane, "overflow"), "1")
        pipeline.sadd(self._keys.known, lane.name)
        pipeline.execute()

    def clear_overflow(self, lane: Lane) -> None:
        """Says that MongoDB holds nothing of the lane that has no hint."""
        self._client.delete(self._keys.of(lane, "overflow"))

    def since(self, lane: Lane) -> int | None:
        """How far the last pour came (milliseconds since 1970), where that was just now."""
        found: Any = self._client.get(self._keys.of(lane, "since"))
        return None if found is None else int(found)

    def pour_done(self, lane: Lane, since_ms: int | None) -> None:
        """Gives back the lock on pouring the lane. `since_ms`: where the next pour goes on."""
        pipeline = self._client.pipeline(transaction=False)
        if since_ms is None:
            pipeline.delete(self._keys.of(lane, "since"))
        else:
            lasts_ms = int(_SINCE_SECONDS * 1000)
            pipeline.set(self._keys.of(lane, "since"), since_ms, px=lasts_ms)
        pipeline.delete(self._keys.of(lane, "pouring"))
        pipeline.execute()
