"""Dramatiq's worker threads, which run plain functions: how they are called to their turns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.worker import _WorkQueueItem

from service.queue.messages import hint_message
from service.worker.holding.job import InFlightJob


class WorkerThreads:
    """A message calls a thread, which then runs what is ready; most jobs need none of their own."""

    def __init__(self, broker: dramatiq.Broker, work_queue: Any) -> None:
        """`work_queue`: where Dramatiq's worker threads take their messages from."""
        self._broker, self._work_queue = broker, work_queue

    def call(self, jobs: Iterable[InFlightJob]) -> None:
        """One thread for each of these jobs."""
        for job in jobs:
            priority = self._broker.get_actor(job.type.name).priority
            message = MessageProxy(hint_message(job.job.hint))
            self._work_queue.put(_WorkQueueItem(priority, message))

    @property
    def messages(self) -> int:
        """How many messages wait for a thread, whatever they are for."""
        return len(self._work_queue.queue)
