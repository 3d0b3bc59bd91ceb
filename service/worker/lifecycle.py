"""Dramatiq middleware: a `WorkerProcess` is made, lives and ends with its Dramatiq worker."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, cast

import dramatiq
from dramatiq.middleware import Middleware

from service.catalog import Catalog
from service.errors import SettingError
from service.queue.broker import PulseBroker
from service.runtime import garbage
from service.settings import Settings
from service.worker import signals

if TYPE_CHECKING:
    from service.worker.process import WorkerProcess

_log = logging.getLogger(__name__)


class Lifecycle(Middleware):
    """In a process that only sends messages (the web) it does nothing."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings, self._catalog = settings, catalog
        self._process: WorkerProcess | None = None

    @property
    def process(self) -> WorkerProcess:
        """Raises `RuntimeError` outside of a worker."""
        if self._process is None:
            raise RuntimeError("this is not a worker process")
        return self._process

    def consumer(self, *args: Any) -> dramatiq.Consumer:
        return self.process.consumer(*args)

    def run(self, job_id: str) -> None:
        """The body of every event type's actor."""
        self.process.runner.run(job_id)

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Dramatiq swallows what a hook raises, but for `SystemExit`."""
        # Not at the top: the web loads this module too, for its event types.
        from service.worker.process import WorkerProcess

        try:
            pulse = cast(PulseBroker, broker)
            self._process = WorkerProcess(self._settings, self._catalog, pulse, worker)
            signals.stop_at_once(self._process.ask_to_stop)
            self._process.start()
        except SettingError as error:
            _log.critical("can't start: %s", error)
            raise SystemExit(2) from None
        except Exception as error:
            _log.critical("the worker can't start", exc_info=True)
            raise SystemExit(1) from error

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        self.process.start_beats()
        garbage.settle()
        _log.info("worker is ready", extra={"worker": self.process.identity.id})

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        at_home = self.process.finish()
        _log.info("worker has stopped", extra={"worker": self.process.identity.id})
        if not at_home:
            # A thread that never came home would keep Dramatiq waiting for it; its job is given
            # back, and whatever it still does is fenced off.
            logging.shutdown()
            os._exit(0)
