"""Remembers that a server is down, so that callers are refused at once and don't wait for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.concurrency.complaints import Complaints
from service.errors import StoreLate, StoreUnavailable, StoreUnreachable

_log = logging.getLogger(__name__)
_UNAVAILABLE = "%s is unavailable: %s"


class CircuitBreaker:
    """Open from a failure until `probe` has succeeded again; a thread tries while it is open.

    No client's request is used for trying: each would wait for the server to be found missing.
    `probe` raises for as long as the server is down. An answer that is late is no failure yet: the
    question may have been a slow one. So `check` is asked, which is quick where the server is well
    and raises where it isn't.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], object],
        every_seconds: float = 0.25,
        *,
        check: Callable[[], object] | None = None,
    ) -> None:
        self.is_open = False
        self._name, self._probe, self._every_seconds = name, probe, every_seconds
        self._check = check or probe
        self._lock = threading.Lock()
        self._in_doubt = self._closing = False
        self._closed = threading.Event()
        self._complaints = Complaints()

    def refuse_while_open(self) -> None:
        """Raises `StoreUnavailable` while it is open."""
        if self.is_open:
            raise StoreUnavailable(f"{self._name} is unavailable")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around a question to the server: not asked while it is open; a failure is noted."""
        self.refuse_while_open()
        try:
            yield
        except StoreUnavailable as error:
            self.note(error)
            raise

    def trip(self, error: BaseException) -> None:
        """Opens it; thread-safe."""
        if self._open():
            _log.log(self._complaints.level(error), _UNAVAILABLE, self._name, error)
            self._start(self._every_seconds)

    def note(self, error: StoreUnavailable) -> None:
        """Draws the conclusion from a question that failed; returns at once. Thread-safe."""
        if isinstance(error, StoreUnreachable):
            self.trip(error)
        elif isinstance(error, StoreLate):
            self.doubt()

    def doubt(self) -> None:
        """Asks `check` on a thread, one at a time, and opens where it raises; returns at once.
        Thread-safe."""
        with self._lock:
            if self.is_open or self._in_doubt or self._closing:
                return
            self._in_doubt = True
        threading.Thread(target=self._look, name=f"{self._name} check", daemon=True).start()

    def begin(self, wait_seconds: float) -> bool:
        """Opens it before anything was tried; whether the probe succeeded in time."""
        if self._open():
            self._start(0)
        return self._closed.wait(wait_seconds)

    def stop(self) -> None:
        self._closing = True

    def _look(self) -> None:
        try:
            self._check()
        except Exception as error:
            self.trip(error)
        finally:
            self._in_doubt = False

    def _open(self) -> bool:
        with self._lock:
            if self.is_open or self._closing:
                return False
            self._closed.clear()
            self.is_open = True
            return True

    def _start(self, after_seconds: float) -> None:
        name = f"{self._name} probe"
        threading.Thread(
            target=self._recover, args=(after_seconds,), name=name, daemon=True
        ).start()

    def _recover(self, after_seconds: float) -> None:
        since = time.monotonic()
        time.sleep(after_seconds)
        while not self._closing:
            try:
                self._probe()
            except Exception as error:
                _log.log(self._complaints.level(error), _UNAVAILABLE, self._name, error)
                time.sleep(self._every_seconds)
            else:
                break
        if self._closing:
            return
        self._complaints.settle()
        self.is_open = False
        self._closed.set()
        _log.info("%s is available after %.1f s", self._name, time.monotonic() - since)
