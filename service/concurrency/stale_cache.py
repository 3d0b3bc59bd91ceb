"""Readings of something slow or hung, for callers that can't wait for it.

A reading is taken on a thread of its own, one at a time: whoever asks meanwhile waits for the same
one, for a moment, and then goes on with what is known.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

Value = TypeVar("Value")
_log = logging.getLogger(__name__)
_SHARE = 20
"""A reading that takes long is taken again after this many times as long."""


@dataclass(frozen=True, slots=True)
class Known(Generic[Value]):
    """What is known: the last value, and whether the last try to read it failed."""

    value: Value | None = None
    """None: never read."""
    read_at: float = float("-inf")
    """Monotonic time."""
    took_seconds: float = 0.0
    error: str | None = None
    """Why the last try failed; None: it did not."""

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.read_at


class StaleCache(Generic[Value]):
    """`read()` runs on a thread and may raise or hang; `get` never does."""

    def __init__(self, read: Callable[[], Value], *, name: str, fresh_seconds: float) -> None:
        self._read, self._name, self._fresh_seconds = read, name, fresh_seconds
        self._lock = threading.Lock()
        self._waiting: list[asyncio.Future[None]] = []
        self._running_since: float | None = None
        self._tried_at = float("-inf")
        self.known: Known[Value] = Known()

    async def get(self, wait_seconds: float) -> Known[Value]:
        """A fresh value if one comes within `wait_seconds`; else the last one, with an `error`."""
        if self._is_fresh():
            return self.known
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._is_fresh():  # one has just ended
                return self.known
            since = self._start()
            self._waiting.append(future)
        left = wait_seconds - (time.monotonic() - since)
        done, _ = await asyncio.wait([future], timeout=max(0.0, left))
        if done:
            return self.known
        took = time.monotonic() - since
        return replace(self.known, error=f"no answer for {took:.1f} s", took_seconds=took)

    def refresh(self) -> Known[Value]:
        """What is known now; a fresh value is on its way where that is too old. Thread-safe."""
        if not self._is_fresh():
            with self._lock:
                if not self._is_fresh():
                    self._start()
        return self.known

    def _is_fresh(self) -> bool:
        fresh_seconds = max(self._fresh_seconds, _SHARE * self.known.took_seconds)
        if self.known.error is not None:
            fresh_seconds = self._fresh_seconds
        return time.monotonic() - self._tried_at < fresh_seconds

    def _start(self) -> float:
        """Since when a reading is under way, which it is now."""
        if self._running_since is None:
            self._running_since = time.monotonic()
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return self._running_since

    def _run(self) -> None:
        began = time.monotonic()
        try:
            value = self._read()
        except Exception as error:
            known = replace(self.known, error=f"{type(error).__name__}: {error}")
            _log.debug("%s can't be read", self._name, exc_info=True)
        else:
            known = Known(value, time.monotonic())
        ended = time.monotonic()
        with self._lock:
            self.known = replace(known, took_seconds=ended - began)
            self._tried_at, self._running_since = ended, None
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            with suppress(RuntimeError):  # its loop has ended
                future.get_loop().call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
