"""What happened in a run, as seen from outside of the system: the input of the checker."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.journal import Effect

Document = dict[str, Any]
OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
"""`unknown`: a time-out, a reset, a 5xx; the call may or may not have had its effect."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client. Times are monotonic seconds, as the journal's."""

    kind: str
    """`post`, `get`, `cancel`, `retry`."""
    began: float
    ended: float
    outcome: str
    status: int | None = None
    event: str | None = None
    mark: int | None = None
    """The number that the client put into the payload: one for each event it wants once."""
    key: str | None = None
    seen: Document | None = None
    """What a successful GET answered."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done to the system."""

    kind: str
    """`kill`, `term`, `freeze`, `proxy`, `duplicate`, ..."""
    target: str
    """`worker`, `web`, `redis`, `mongod`, `network to redis`, ..."""
    began: float
    ended: float
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a client asked for with one mark, so that it is known how it may end."""

    payload: Document
    max_attempts: int = 5

    @property
    def succeeds(self) -> bool:
        """Whether its last attempt at the latest does, if nobody kills its process."""
        fails = self.payload.get("fail_times", 0) >= self.max_attempts
        return not (fails or self.payload.get("reject") or self.payload.get("die"))


@dataclass(slots=True)
class History:
    """One run. `documents` and `counters` are MongoDB's, after healing and draining."""

    calls: list[Call] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    plans: dict[int, Plan] = field(default_factory=dict)
    counters: dict[str, Document] | None = None
    history_limit: int = 100
    wall_offset: float = 0.0
    """What turns monotonic seconds into seconds since 1970."""

    @property
    def accepted(self) -> dict[str, Call]:
        """The successful posts by event, the first of each."""
        found: dict[str, Call] = {}
        for call in self.calls:
            if call.kind == "post" and call.outcome == OK and call.event is not None:
                found.setdefault(call.event, call)
        return found

    def count(self, kind: str) -> Counter[str]:
        """The calls of one kind by outcome."""
        return Counter(call.outcome for call in self.calls if call.kind == kind)

    def save(self, path: Path) -> None:
        """As JSON, for a look at a run that went wrong."""
        path.write_text(json.dumps(asdict(self), default=str, indent=1))


class Recorder:
    """Collects calls, plans and faults from many threads."""

    def __init__(self) -> None:
        self.history = History(wall_offset=time.time() - time.monotonic())
        self._marks = 0
        self._lock = threading.Lock()

    def plan(self, payload: Document, max_attempts: int = 5) -> int:
        """A new mark for an event that a client wants once; the payload carries it as `n`."""
        with self._lock:
            self._marks += 1
            payload["n"] = self._marks
            self.history.plans[self._marks] = Plan(payload, max_attempts)
            return self._marks

    def add(self, call: Call) -> None:
        self.history.calls.append(call)

    @contextmanager
    def fault(self, kind: str, target: str, *pids: int) -> Iterator[None]:
        """Notes what is done within, also if it fails."""
        began = time.monotonic()
        try:
            yield
        finally:
            fault = Fault(kind, target, began, time.monotonic(), pids)
            self.history.faults.append(fault)
