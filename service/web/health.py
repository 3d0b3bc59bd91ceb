"""Whether events can be accepted, and what is wrong; within a second, whatever hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from service.concurrency.stale_cache import Known, StaleCache
from service.store.mongo import Document

_FRESH_SECONDS = 0.25
_WAIT_SECONDS = 0.6


class Health:
    """`ping_redis` raises where Redis is down; `read_workers` reads the live workers' documents
    from MongoDB and raises where it is down or can't take writes."""

    def __init__(
        self,
        ping_redis: Callable[[], object],
        read_workers: Callable[[], Sequence[Document]],
    ) -> None:
        self._redis: StaleCache[object] = StaleCache(
            ping_redis, name="redis health", fresh_seconds=_FRESH_SECONDS
        )
        self._mongodb: StaleCache[Sequence[Document]] = StaleCache(
            read_workers, name="mongodb health", fresh_seconds=_FRESH_SECONDS
        )

    async def check(self) -> dict[str, Any]:
        """The body of `/health`: status `ok`, `degraded` (accepts events), or `down`."""
        began = time.perf_counter()
        await asyncio.sleep(0)
        lag_ms = (time.perf_counter() - began) * 1000
        redis, mongodb = await asyncio.gather(
            self._redis.get(_WAIT_SECONDS), self._mongodb.get(_WAIT_SECONDS)
        )
        workers = _workers(mongodb)
        checks = {
            "api": {"status": "ok", "latency_ms": round(lag_ms, 3)},
            "redis": _check(redis),
            "mongodb": _check(mongodb),
            "workers": workers,
        }
        well = redis.error is None and workers["status"] == "ok"
        status = "down" if mongodb.error is not None else "ok" if well else "degraded"
        return {"status": status, "checks": checks}


def _check(known: Known[Any]) -> dict[str, Any]:
    check: dict[str, Any] = {
        "status": "ok" if known.error is None else "down",
        "latency_ms": round(known.took_seconds * 1000, 3),
    }
    if known.error is not None:
        check["detail"] = "no answer" if known.error.startswith("no answer") else "unreachable"
    return check


def _workers(mongodb: Known[Sequence[Document]]) -> dict[str, Any]:
    if mongodb.error is not None:
        return {"status": "unknown", "alive": None, "workers": []}
    workers = [_worker(document) for document in mongodb.value or ()]
    return {"status": "ok" if workers else "down", "alive": len(workers), "workers": workers}


def _worker(document: Document) -> dict[str, Any]:
    return {
        "id": document["_id"],
        "host": document.get("host"),
        "pid": document.get("pid"),
        "last_heartbeat_seconds_ago": round(document["age_seconds"], 3),
        "processing": document.get("processing", 0),
    }
