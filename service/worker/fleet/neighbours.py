"""The other worker processes, as this one sees them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from service.runtime.identity import is_gone
from service.store import LeaderLease, Worker, WorkerStore

_log = logging.getLogger(__name__)


class Placed(Protocol):
    position: tuple[int, int]
    """This worker's place among the workers alive: (index, count)."""


class Neighbours:
    """One read of the list of workers serves all that depends on it."""

    def __init__(
        self,
        workers: WorkerStore,
        identity: Worker,
        leader: LeaderLease,
        placed: Placed,
        *,
        lease_seconds: float,
        on_death: Sequence[Callable[[], None]],
    ) -> None:
        """`placed` is told where this process stands; each of `on_death` is called where somebody
        who was alive at the last look isn't now."""
        self._workers, self._identity, self._leader = workers, identity, leader
        self._placed, self._lease_seconds, self._on_death = placed, lease_seconds, on_death
        self._alive: set[str] = set()

    def look(self) -> None:
        """Raises `StoreUnavailable`."""
        workers = self._workers.seen_from(self._identity.process_space)
        alive = sorted(w["_id"] for w in workers if w["age_seconds"] < self._lease_seconds)
        if not self._alive <= set(alive):
            for tell in self._on_death:
                tell()
        self._alive = set(alive)
        if self._identity.id in alive:
            self._placed.position = (alive.index(self._identity.id), len(alive))
        self._bury(workers)

    def _bury(self, workers: Sequence[dict[str, Any]]) -> None:
        """Removes the documents of processes that this one can see are gone: no need to wait for
        the end of their lease."""
        for worker in filter(self._is_gone, workers):
            _log.warning("a worker process is gone", extra={"worker": worker["_id"]})
            self._workers.remove(worker["_id"])
            self._leader.bury(worker["_id"])
            self._leader.renew()

    def _is_gone(self, worker: dict[str, Any]) -> bool:
        return (
            worker["_id"] != self._identity.id
            and worker.get("process_space") == self._identity.process_space
            and is_gone(worker["pid"], worker["pid_started"])
        )
