"""Wakes whoever claims, once there is room that is worth a claim."""

from __future__ import annotations

from collections.abc import Callable

_NEVER = -2


def _nobody() -> None:
    """Where nobody is to be woken."""


class Watermarks:
    """Each mark that is reached calls `on_reached` once. What it costs a job is one comparison."""

    def __init__(self) -> None:
        self.on_reached: Callable[[], None] = _nobody
        self._ready, self._places, self._written = _NEVER, float("inf"), False

    def set(
        self, *, ready: int = _NEVER, places: float = float("inf"), written: bool = False
    ) -> None:
        """To call where no more than so many jobs wait for a thread (-1: a thread has none), where
        so many places for coroutines are free, or whenever outcomes were written."""
        self._ready, self._places, self._written = ready, places, written

    def ready(self, count: int) -> None:
        if count <= self._ready:
            self._ready = _NEVER
            self.on_reached()

    def places(self, free: int) -> None:
        if free >= self._places:
            self._places = float("inf")
            self.on_reached()

    def written(self) -> None:
        if self._written:
            self.on_reached()
