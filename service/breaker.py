"""Remembers that a server is down, so that callers are refused at once and don't wait for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Breaker:
    """Open from a failure until `probe` has succeeded again; a thread tries while it is open.

    No client's request is used for trying: each would wait for the server to be found missing.
    `probe` raises for as long as the server is down.
    """

    def __init__(self, name: str, probe: Callable[[], object], every_seconds: float = 0.25) -> None:
        self.is_open = False
        self._name, self._probe, self._every_seconds = name, probe, every_seconds
        self._lock = threading.Lock()
        self._closing = False

    def trip(self, error: BaseException) -> None:
        """Opens it; thread-safe."""
        with self._lock:
            if self.is_open or self._closing:
                return
            self.is_open = True
        _log.warning("%s is unavailable: %s", self._name, error)
        threading.Thread(target=self._recover, name=f"{self._name} probe", daemon=True).start()

    def stop(self) -> None:
        self._closing = True

    def _recover(self) -> None:
        since = time.monotonic()
        while not self._closing:
            time.sleep(self._every_seconds)
            try:
                self._probe()
            except Exception as error:
                _log.debug("%s is still unavailable: %s", self._name, error)
            else:
                break
        self.is_open = False
        _log.warning("%s is back after %.1f s", self._name, time.monotonic() - since)
