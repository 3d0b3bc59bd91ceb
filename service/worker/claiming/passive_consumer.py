"""Dramatiq has a consumer a queue; the jobs of event types reach it another way."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from dramatiq.broker import Consumer, MessageProxy

_LOOK_SECONDS = 5.0
_DRAINING_SECONDS = 0.05


class PassiveConsumer(Consumer):
    """Brings nothing, needs no connection, and has nothing to ack: the hints that its messages are
    were spent when they were taken."""

    def __init__(self, draining: threading.Event) -> None:
        self._draining, self._never = draining, threading.Event()

    def __next__(self) -> MessageProxy | None:
        """None after a while, so that Dramatiq sees whether it should stop."""
        if self._draining.wait(_LOOK_SECONDS):
            self._never.wait(_DRAINING_SECONDS)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    def nack(self, message: MessageProxy) -> None:
        """Nothing to do."""

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Their jobs are given back through MongoDB."""
