"""How often to look for what is seldom there: `AdaptiveInterval` by what looking costs,
`AlertInterval` by whether something happened that calls for it."""

from __future__ import annotations

import time
from collections.abc import Callable

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

    def run_if_due(self, look: Callable[[], object]) -> bool:
        """Takes a look, where one is due, and times it; whether one was due."""
        if not self.is_due:
            return False
        self._hurried = False
        began = time.monotonic()
        try:
            look()
        finally:
            now = time.monotonic()
            took = now - began
            wait = min(_SHARE * took, self._most_seconds) if took > _CHEAP_SECONDS else 0.0
            self._next_at = now + wait
        return True


class AlertInterval:
    """Lets every look be taken for a while after an alert (its start is one), and after a look that
    found something; later, one now and then."""

    def __init__(self, alert_seconds: float, calm_seconds: float) -> None:
        self._alert_seconds, self._calm_seconds = alert_seconds, calm_seconds
        self._next_at = 0.0
        self.alert()

    @property
    def is_due(self) -> bool:
        now = time.monotonic()
        return now < self._alert_until or now >= self._next_at

    def alert(self) -> None:
        """Something happened: looks are due from now on. Any thread may call it."""
        self._alert_until = time.monotonic() + self._alert_seconds

    def run_if_due(self, look: Callable[[], bool]) -> bool:
        """Takes a look, where one is due; whether one was due. `look` says whether it found
        something; one that fails is due again."""
        if not self.is_due:
            return False
        if look():
            self.alert()
        self._next_at = time.monotonic() + self._calm_seconds
        return True
