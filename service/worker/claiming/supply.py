"""What the consumers of a process share."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

import redis
from dramatiq.broker import MessageProxy

from service.catalog import Catalog
from service.clock import ServerClock
from service.store import Counters, JobStore
from service.worker.fleet.lease import Lease
from service.worker.registry import Registry

_DOUBT_SECONDS = 60.0


@dataclass(slots=True)
class Supply:
    """What consumers claim with, and what the rest of the process tells them."""

    store: JobStore
    counters: Counters
    registry: Registry
    lease: Lease
    clock: ServerClock
    catalog: Catalog
    worker_id: str
    wake_client: redis.Redis
    draining: threading.Event = field(default_factory=threading.Event)
    redis_away: threading.Event = field(default_factory=threading.Event)
    suspects_wait: threading.Event = field(default_factory=threading.Event)
    alone: threading.Lock = field(default_factory=threading.Lock)
    """Held by a consumer while it claims, so that nobody joins the suspects of another."""
    position: tuple[int, int] = (0, 1)
    """This worker's place among the workers alive: (index, count). They look at different parts of
    the backlog, so that they don't ask for the same jobs."""
    ready: dict[str, deque[MessageProxy]] = field(default_factory=lambda: defaultdict(deque))
    """By queue: messages that were fetched and claimed, for the threads to take."""
    doubtful_until: float = 0.0
    """Monotonic time until which a claim that got no answer may still take effect."""

    def doubt(self) -> None:
        self.doubtful_until = time.monotonic() + _DOUBT_SECONDS
