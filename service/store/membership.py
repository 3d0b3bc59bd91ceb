"""One worker process among the others."""

from __future__ import annotations

import threading

from service.store.workers import Worker, WorkerStore

_LAST_BEAT_SECONDS = 1.0


class Membership:
    """From a worker's first heartbeat to its goodbye."""

    def __init__(self, workers: WorkerStore, worker: Worker) -> None:
        self._workers, self._worker = workers, worker
        self._left = False
        self._beating = threading.Lock()

    def beat(self, processing: int) -> bool:
        """Renews the lease on all that the worker holds; False where it has left. Raises
        `StoreUnavailable`."""
        with self._beating:
            if not self._left:
                self._workers.beat(self._worker, processing)
            return not self._left

    def leave(self) -> None:
        """Removes the worker's document for good. Raises `StoreUnavailable`.

        A heartbeat that is under way comes first: after this, it would bring the document back.
        One that takes its time isn't waited for: then MongoDB hangs, and the lease must end.
        """
        self._left = True
        if self._beating.acquire(timeout=_LAST_BEAT_SECONDS):
            self._beating.release()
        self._workers.remove(self._worker.id)
