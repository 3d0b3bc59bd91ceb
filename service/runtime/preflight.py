"""Looks at what a process depends on, once at its start, and warns of what will hurt one day.

Nothing here stops a start, or holds it up: a warning is a line in the log.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import redis
from redis.exceptions import AuthenticationError, NoPermissionError

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.store.audit import Audit

_log = logging.getLogger(__name__)
MOST_SKEW_SECONDS = 2.0
_SINGLE = (
    "MongoDB is a single server without a replica set: a write whose reply gets lost is not "
    "retried by the driver, and one disk holds all; a set of one already mends the first"
)


def warnings(audit: Audit, client: redis.Redis, clock: ServerClock) -> list[str]:
    """One sentence for each thing that should be otherwise; what can't be read isn't judged.

    Takes a few round trips to each server. `clock` has taken a reading before.
    """
    return [*_of_redis(client), *_of_mongodb(audit), *_of_clock(clock)]


def warn_soon(audit: Audit, client: redis.Redis, clock: ServerClock) -> None:
    """Logs the warnings from a thread of its own; returns at once."""

    def look() -> None:
        try:
            for warning in warnings(audit, client, clock):
                _log.warning(warning)
        except Exception:
            _log.debug("the preflight check failed", exc_info=True)

    threading.Thread(target=look, name="preflight", daemon=True).start()


def _of_redis(client: redis.Redis) -> list[str]:
    found = []
    try:
        policy = _info(client, "memory").get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            found.append(
                f"Redis may evict messages when its memory is full: maxmemory-policy is {policy}, "
                "and should be noeviction"
            )
        if _forgets(client):
            found.append(
                "Redis keeps nothing over a restart (no append-only file, no snapshots): whatever "
                "it held then is dispatched anew from MongoDB"
            )
    except (AuthenticationError, NoPermissionError) as error:
        found.append(f"Redis refuses this process, by user and password in REDIS_URL: {error}")
    except redis.RedisError as error:
        _log.debug("Redis can't be judged: %s", error)
    return found


def _forgets(client: redis.Redis) -> bool:
    if _info(client, "persistence").get("aof_enabled", 1):
        return False
    try:
        save: Any = client.config_get("save")
    except redis.ResponseError:  # managed services hide CONFIG, and what they do instead
        return False
    return not any(save.values())


def _info(client: redis.Redis, section: str) -> dict[str, Any]:
    answer: Any = client.info(section)
    return dict(answer)


def _of_mongodb(audit: Audit) -> list[str]:
    try:
        replicated = audit.is_replicated()
    except StoreUnavailable as error:
        _log.debug("MongoDB can't be judged: %s", error)
        return []
    if replicated:
        return []
    return [_SINGLE]


def _of_clock(clock: ServerClock) -> list[str]:
    skew = clock.host_skew_seconds()
    if abs(skew) <= MOST_SKEW_SECONDS:
        return []
    word = "ahead of" if skew > 0 else "behind"
    where = f"this host's clock is {abs(skew):.1f} s {word} MongoDB's"
    return [f"{where}: jobs go by MongoDB's clock, but the times in this log don't"]
