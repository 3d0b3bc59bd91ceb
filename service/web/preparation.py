"""What must be so before a web process takes events."""

from __future__ import annotations

import logging

import redis

from service.clock import ServerClock
from service.runtime import preflight
from service.store import Stores

_log = logging.getLogger(__name__)


class Preparation:
    """MongoDB takes writes, has its indexes, and has told the time."""

    def __init__(self, stores: Stores, client: redis.Redis, clock: ServerClock) -> None:
        self._stores, self._client, self._clock = stores, client, clock
        self._done = False

    def run(self, longest_seconds: float) -> None:
        """Does what is not done yet. Raises `StoreUnavailable`, also where no server takes writes
        within `longest_seconds`."""
        self._stores.check_writable(longest_seconds)
        if not self._done:
            self._stores.read_clock(self._clock)
            self._stores.prepare()
            self._done = True
            _log.info("web is ready")
            preflight.warn_soon(self._stores.audit, self._client, self._clock)
