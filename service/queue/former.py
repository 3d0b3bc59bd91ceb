"""The lists and the hash of a queue, as processes of a former version use them for hints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

_SCRIPT = Path(__file__).parent / "lua" / "adopt.lua"


class FormerQueues:
    """Every method raises `redis.RedisError`."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._prefix = f"{namespace}:"
        self._script = client.register_script(_SCRIPT.read_text())

    def take(self, queues: Sequence[str], most: int) -> list[tuple[str, bytes | None]]:
        """Takes up to `most` messages off these queues, for good: (queue, message), None where it
        had no content. One question where there are none."""
        flat: Any = self._script(args=[self._prefix, most, *queues]) if queues else []
        return [(name.decode(), data) for name, data in zip(flat[::2], flat[1::2], strict=True)]
