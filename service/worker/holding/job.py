"""A claimed job on its way through this process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from service.catalog import EventType
from service.job import Job

Claim = tuple[str, str]
"""A job's id and its claim's token: the same job may be held twice, under two claims."""


class Stage(Enum):
    READY = "ready"
    RUNNING = "running"
    DROPPED = "dropped"


@dataclass(slots=True, eq=False)
class InFlightJob:
    """A claimed job, and how far it is."""

    job: Job
    type: EventType
    stage: Stage = Stage.READY
    has_place: bool = True
    """Whether it still takes one of the places for running jobs."""
    settled: bool = False
    """Whether an attempt result was taken for it: of several, the first one counts."""
    cancelled: bool = False
    alone_until: float = 0.0
    """Monotonic time until which nothing else should be claimed; for suspects."""
    since: float = field(default_factory=time.monotonic)
    """Monotonic time of its claim."""
    started: float = field(default=float("inf"))
    """Monotonic time at which its run began."""
    deadline: float = field(default=float("inf"))
    """Monotonic time of its time limit, once it runs."""
    task: Any = None
    """The asyncio task of an asynchronous handler."""
    size: int = 0
    """Bytes of memory that it takes, about, its result included once there is one."""
    is_async: bool = False

    def __post_init__(self) -> None:
        self.cancelled = self.cancelled or self.job.cancel_requested
        self.size = self.job.size or 0
        self.is_async = self.type.is_async

    @property
    def claim(self) -> Claim:
        return self.job.id, self.job.claim

    def start(self, now: float) -> None:
        """`now`: monotonic time, from which its time limit counts."""
        self.stage = Stage.RUNNING
        self.started = now
        self.deadline = now + self.job.time_limit_ms / 1000
