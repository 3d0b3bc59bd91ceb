"""Reads the server's clock again and again, for a process without a heartbeat that would."""

from __future__ import annotations

import threading
from contextlib import suppress

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.store import Stores

_EVERY_SECONDS = 5.0


class ClockReader(threading.Thread):
    """The first reading is somebody else's: it is one of the things a process begins with."""

    def __init__(
        self, stores: Stores, clock: ServerClock, *, every_seconds: float = _EVERY_SECONDS
    ) -> None:
        super().__init__(name="clock", daemon=True)
        self._stores, self._clock, self._every_seconds = stores, clock, every_seconds
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            with suppress(StoreUnavailable):  # the monotonic clock carries the last reading on
                self._stores.read_clock(self._clock)

    def stop(self) -> None:
        self._stopped.set()
