"""What a Redis server says of itself."""

from __future__ import annotations

from typing import Any

import redis


class RedisFigures:
    """Each look costs it one command."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def commands(self) -> int:
        """How many it has carried out since its start."""
        return int(self._info("stats")["total_commands_processed"])

    def memory_mb(self) -> float:
        return float(self._info("memory")["used_memory"]) / 1e6

    def version(self) -> str:
        return str(self._info("server")["redis_version"])

    def _info(self, section: str) -> dict[str, Any]:
        info: Any = self._client.info(section)
        return dict(info)
