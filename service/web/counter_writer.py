"""Writes counts to MongoDB, behind the answer: no request waits for it.

A process that is killed loses the counts of its last moment.
"""

from __future__ import annotations

import logging
import threading

from service.errors import StoreUnavailable
from service.store import Counters, Deltas

_log = logging.getLogger(__name__)
_GATHER_SECONDS = 0.02
"""Counts are gathered for so long before they are written. Written at once, a count would overlap
with the claim of the event that it counts. MongoDB's journal flusher passes over a write that
overlaps with one that nobody waits for: the claim would then wait until something else is
written."""


class CounterWriter:
    """Its thread starts with the first count, and so after a fork."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._gathered = Deltas()
        self._lock = threading.Lock()
        self._some, self._stopped = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, deltas: Deltas) -> None:
        """Takes counts; returns at once. Thread-safe."""
        if not deltas:
            return
        with self._lock:
            self._gathered.merge(deltas)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="counts", daemon=True)
                self._thread.start()
            self._some.set()

    def stop(self, timeout_seconds: float = 3.0) -> None:
        """Writes what was taken, then ends the thread."""
        self._stopped.set()
        self._some.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    # on the thread

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._some.wait()
            self._stopped.wait(_GATHER_SECONDS)
            self._write(self._taken())
        self._write(self._taken())  # what came during the last write

    def _taken(self) -> Deltas:
        with self._lock:
            self._some.clear()
            taken, self._gathered = self._gathered, Deltas()
        return taken

    def _write(self, deltas: Deltas) -> None:
        try:
            self._counters.add(deltas)
        except StoreUnavailable as error:
            _log.warning("some events were not counted: %s", error)
        except Exception:  # the thread must live: later counts wait for it
            _log.exception("some events were not counted")
