"""Whether this process can still do its work. Where it can't, it ends, so that its supervisor
starts a fresh one."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

from service.worker.holding.in_flight import InFlight
from service.worker.running.stuck_runs import StuckRuns
from service.worker.shutdown import Shutdown

_log = logging.getLogger(__name__)
_STUCK_EXIT = 70


class Watchdog:
    """`threads()` gives those without which the process is of no use. It asks no server, so that no
    outage keeps it from looking."""

    def __init__(
        self,
        in_flight: InFlight,
        stuck_runs: StuckRuns,
        threads: Callable[[], Iterable[threading.Thread]],
        shutdown: Shutdown,
        draining: threading.Event,
        *,
        grace_seconds: float,
    ) -> None:
        """`grace_seconds`: so long beyond its time limit a run may go on."""
        self._in_flight, self._stuck_runs, self._threads = in_flight, stuck_runs, threads
        self._shutdown, self._draining = shutdown, draining
        self._grace_seconds = grace_seconds
        self._parent = os.getppid()

    def look(self) -> None:
        self._look_for_the_parent()
        self._look_for_the_stuck()
        self._look_for_the_dead()

    def _look_for_the_parent(self) -> None:
        """Dramatiq's outermost process, which nobody would restart while this one lives."""
        if os.getppid() != self._parent:
            self._give_up("its parent process is gone")

    def _look_for_the_stuck(self) -> None:
        """A run that its time limit can't interrupt ends as a timeout; as its thread is lost, the
        process ends too."""
        self._stuck_runs.interrupt_blocked_loop()
        before = time.monotonic() - self._grace_seconds
        stuck = [job for job in self._in_flight.running() if job.deadline < before]
        if not stuck:
            return
        blamed = self._stuck_runs.to_blame(stuck)
        for job in blamed:
            self._stuck_runs.end(job)
        names = ", ".join(sorted({job.type.name for job in blamed}))
        self._give_up(f"{len(stuck)} run(s) are stuck beyond their time limit, by {names}")

    def _look_for_the_dead(self) -> None:
        for thread in self._threads():
            if not thread.is_alive() and not self._draining.is_set():
                self._give_up(f"a thread that it needs is dead: {thread!r}")

    def _give_up(self, why: str) -> None:
        _log.critical("this process gives its jobs back and exits: %s", why)
        try:
            self._shutdown.drain()
            self._shutdown.finish()
            logging.shutdown()
        finally:  # a next look wouldn't find again what this one has ended
            os._exit(_STUCK_EXIT)
