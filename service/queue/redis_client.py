"""Makes Redis clients: every command with a deadline."""

from __future__ import annotations

import contextlib

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.errors import SettingError
from service.settings import Settings

_BLOCK_TIMEOUT_SECONDS = 8.0


def connect(
    settings: Settings, *, timeout_seconds: float | None = None, reconnects: int = 1
) -> redis.Redis:
    """A client of bytes; a command that gets no answer in time raises `redis.TimeoutError`. Raises
    `SettingError` for a URL that can't be one.

    A connection that Redis closed while it was idle is no outage, so one reconnect is tried at
    once; nothing more, because a caller knows better what to do meanwhile.
    """
    connect_seconds = settings.redis_timeout_ms / 1000
    try:
        return redis.Redis.from_url(
            settings.redis_url,
            protocol=2,
            decode_responses=False,
            socket_timeout=timeout_seconds or connect_seconds,
            socket_connect_timeout=connect_seconds,
            retry=Retry(NoBackoff(), reconnects, supported_errors=(redis.ConnectionError,)),
            client_name="pulsequeue",
        )
    except ValueError as error:
        raise SettingError(f"REDIS_URL: not what Redis's client takes: {error}") from None


def connect_to_block(settings: Settings) -> redis.Redis:
    """A client of one thread's own, for commands that block some seconds and that `interrupt` may
    break off; otherwise as `connect`."""
    return connect(settings, timeout_seconds=_BLOCK_TIMEOUT_SECONDS, reconnects=0)


def interrupt(client: redis.Redis) -> None:
    """Breaks off the commands that are under way on this client's connections, blocking ones above
    all: they raise `redis.RedisError`. Any thread may call it."""
    with contextlib.suppress(redis.RedisError, OSError):
        client.connection_pool.disconnect(inuse_connections=True)
