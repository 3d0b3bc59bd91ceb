"""Dramatiq middleware: a `WorkerProcess` is made, lives and ends with its Dramatiq worker."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, cast

import dramatiq
from dramatiq.middleware import Middleware

from service.catalog import Catalog
from service.errors import SettingError
from service.queue.broker import PulseBroker
from service.runtime import garbage
from service.settings import Settings

if TYPE_CHECKING:
    from service.worker.process import WorkerProcess

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_REDIS_SECONDS = 2.0
_TIDY_SECONDS = 30.0
_LATE_SECONDS = 2.0
_LETTERS_SECONDS = 5.0


class Lifecycle(Middleware):
    """In a process that only sends messages (the web) it does nothing."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings, self._catalog = settings, catalog
        self._process: WorkerProcess | None = None
        self._scheduler: Any = None

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
        from service.worker.process import (
            WorkerProcess,  # not in the web, which loads this for its types
        )

        try:
            pulse = cast(PulseBroker, broker)
            self._process = WorkerProcess(self._settings, self._catalog, pulse, worker)
            self._stop_at_once_on_signals()
            self._process.start()
        except SettingError as error:
            _log.critical("can't start: %s", error)
            raise SystemExit(2) from None
        except Exception as error:
            _log.critical("the worker can't start", exc_info=True)
            raise SystemExit(1) from error

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        from service.worker.fleet.heartbeat import schedule
        from service.worker.maintenance.scheduler import BEAT_SECONDS

        process = self.process
        self._scheduler = schedule(
            {
                "heartbeat": (self._settings.heartbeat_seconds, process.beat),
                "look": (_LOOK_SECONDS, process.look),
                "redis": (_REDIS_SECONDS, process.look_at_redis),
                "dispatch": (self._settings.sweep_seconds, process.dispatch),
                "schedules": (BEAT_SECONDS, process.scheduler.beat),
                "late": (_LATE_SECONDS, process.dispatch_late),
                "letters": (_LETTERS_SECONDS, process.send_dead_letters),
                "sweep": (2 * self._settings.sweep_seconds, process.sweep),
                "tidy": (_TIDY_SECONDS, process.tidy),
            }
        )
        garbage.settle()
        _log.info("worker is ready", extra={"worker": process.identity.id})

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        at_home = self.process.finish()
        self._scheduler.shutdown(wait=False)
        _log.info("worker has stopped", extra={"worker": self.process.identity.id})
        if not at_home:
            # A thread that never came home would keep Dramatiq waiting for it; its job is given
            # back, and whatever it still does is fenced off.
            logging.shutdown()
            os._exit(0)

    def _stop_at_once_on_signals(self) -> None:
        """Dramatiq looks at its signals once a second; jobs should be given back before that."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            former = signal.getsignal(number)

            def handle(signum: int, frame: Any, former: Any = former) -> None:
                # A signal to the process group comes twice: from its sender, and from Dramatiq's
                # master, which passes it on. Dramatiq would take the second one for impatience.
                if self.process.ask_to_stop() and callable(former):
                    former(signum, frame)

            signal.signal(number, handle)
