"""Where candidates for a claim come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from service.job import Hint
from service.queue.lanes import Lane


class Source(Protocol):
    """Hints at jobs that wait. Used by one thread."""

    waiting: set[Lane]
    """The lanes that have something, as far as is known: what is taken next is taken from them."""

    def take(self, wants: Mapping[Lane, int], most: int) -> list[Hint]:
        """Up to `most` hints, of each lane at most as many as wanted; no job comes twice. Learns
        what is `waiting`."""

    def return_unclaimed(self, hints: Sequence[Hint], *, wake: bool) -> None:
        """Puts back what was taken and not claimed. `wake`: for others, who should find it at
        once."""
