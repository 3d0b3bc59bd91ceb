"""What those share who supply this process with jobs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from service.catalog import Catalog
from service.clock import ServerClock
from service.store import Counters, JobStore
from service.worker.fleet.lease import Lease
from service.worker.holding.in_flight import InFlight

_DOUBT_SECONDS = 60.0


class Signal(threading.Event):
    """An event whose every change wakes the supplier."""

    def __init__(self, wake: threading.Event) -> None:
        super().__init__()
        self._wake = wake

    def set(self) -> None:
        super().set()
        self._wake.set()

    def clear(self) -> None:
        was_set = self.is_set()
        super().clear()
        if was_set:
            self._wake.set()


@dataclass(slots=True)
class Supply:
    """What jobs are claimed with, and what the rest of the process tells whoever claims."""

    store: JobStore
    counters: Counters
    in_flight: InFlight
    lease: Lease
    clock: ServerClock
    catalog: Catalog
    worker_id: str
    queues: list[str]
    """Those that this process serves."""
    wake: threading.Event = field(default_factory=threading.Event)
    """Set where the supplier has something to look at."""
    draining: Signal = field(init=False)
    redis_away: Signal = field(init=False)
    suspects_wait: Signal = field(init=False)
    claiming: threading.Lock = field(default_factory=threading.Lock)
    """Held while a claim is under way."""
    position: tuple[int, int] = (0, 1)
    """This worker's place among the workers alive: (index, count). Where Redis is away, they look
    at different parts of the backlog, so that they don't ask for the same jobs."""
    doubtful_until: float = 0.0
    """Monotonic time until which a claim that got no answer may still take effect."""

    def __post_init__(self) -> None:
        self.draining, self.redis_away = Signal(self.wake), Signal(self.wake)
        self.suspects_wait = Signal(self.wake)
        self.in_flight.watermarks.on_reached = self.wake.set

    def doubt(self) -> None:
        self.doubtful_until = time.monotonic() + _DOUBT_SECONDS
