"""How often to look for what is seldom there: `AdaptiveInterval` by what looking costs, `Vigil` by
whether something happened that calls for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_CHEAP_SECONDS = 0.01
_SHARE = 250


class AdaptiveInterval:
    """Lets a look that takes long be taken less often: after 250 times as long.

    MongoDB keeps the index keys of what has changed for five minutes, as history; after a flood of
    jobs, a look for the oldest open ones has to pass over all of them.
    """

    def __init__(self, most_seconds: float = 10.0) -> None:
        """`most_seconds`: no look is put off for longer."""
        self._most_seconds = most_seconds
        self._next_at = 0.0
        self._hurried = False

    @property
    def is_due(self) -> bool:
        return self._hurried or time.monotonic() >= self._next_at

    def hurry(self) -> None:
        """The next look is due now; one that is under way may have passed by what it is for."""
        self._hurried = True

    @contextmanager
    def look(self) -> Iterator[None]:
        """Times one look."""
        self._hurried = False
        began = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            took = now - began
            wait = min(_SHARE * took, self._most_seconds) if took > _CHEAP_SECONDS else 0.0
            self._next_at = now + wait


class Vigil:
    """Every look is due for a while after `call` (its start is one); later, now and then."""

    def __init__(self, awake_seconds: float, calm_seconds: float) -> None:
        self._awake_seconds, self._calm_seconds = awake_seconds, calm_seconds
        self.call()

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next_at

    def call(self) -> None:
        """Something happened: looks are due from now on."""
        self._next_at = 0.0
        self._awake_until = time.monotonic() + self._awake_seconds

    def looked(self) -> None:
        """There was nothing."""
        now = time.monotonic()
        if now > self._awake_until:
            self._next_at = now + self._calm_seconds
