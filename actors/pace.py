"""How often to look for what is seldom there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_CHEAP_SECONDS = 0.01
_SHARE = 100
_MOST_SECONDS = 10.0


class Pace:
    """Lets a look that takes long be taken less often: after a hundred times as long.

    MongoDB keeps the index keys of what has changed for five minutes, as history; after a flood of
    jobs, a look for the oldest open ones has to pass over all of them.
    """

    def __init__(self) -> None:
        self._next_at = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next_at

    def hurry(self) -> None:
        """The next look is due now."""
        self._next_at = 0.0

    @contextmanager
    def look(self) -> Iterator[None]:
        """Times one look."""
        began = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            took = now - began
            wait = min(_SHARE * took, _MOST_SECONDS) if took > _CHEAP_SECONDS else 0.0
            self._next_at = now + wait
