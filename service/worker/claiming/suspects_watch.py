"""Whether suspects wait: jobs that were held by a process that died."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from service.clock import ServerClock
from service.concurrency.adaptive_interval import AlertInterval
from service.store.waiting import WaitingJobs

_AFTER_A_DEATH_SECONDS = 30.0
_CALM_SECONDS = 10.0


class SuspectsWatch:
    """Suspects come from deaths: it looks often for a while after one, and now and then otherwise,
    because nobody sees every death."""

    def __init__(
        self,
        waiting: WaitingJobs,
        types: Sequence[str],
        clock: ServerClock,
        suspects_wait: threading.Event,
    ) -> None:
        """`suspects_wait` is set where there are some."""
        self._waiting, self._types = waiting, types
        self._clock, self._suspects_wait = clock, suspects_wait
        self._interval = AlertInterval(_AFTER_A_DEATH_SECONDS, _CALM_SECONDS)

    def somebody_died(self) -> None:
        self._interval.alert()

    def is_due(self) -> bool:
        return self._interval.is_due

    def look(self) -> None:
        """Raises `StoreUnavailable`."""
        self._interval.run_if_due(self._find)

    def _find(self) -> bool:
        if not self._waiting.suspects(self._types, self._clock.now(), 1):
            return False
        self._suspects_wait.set()
        return True
