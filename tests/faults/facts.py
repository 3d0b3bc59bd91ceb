"""A history sorted by event, for the rules."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from tests.faults.history import Call, Fault, History
from tests.faults.journal import Effect

_EVERYWHERE = ("mongod", "network to mongod")
"""Faults of these touch every worker: a living one may lose its lease."""
_AFTERMATH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Violation:
    kind: str
    event: str
    detail: str


class Facts:
    """A history by event."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.documents = {d["_id"]: d for d in history.documents}
        self.gets: dict[str, list[Call]] = defaultdict(list)
        self.asked: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in sorted(history.calls, key=lambda c: c.began):
            if call.event is not None and call.kind == "get":
                self.gets[call.event].append(call)
            elif call.event is not None and call.kind != "post":
                self.asked[call.kind, call.event].append(call)
        self.effects: dict[str, list[Effect]] = defaultdict(list)
        for effect in history.effects:
            self.effects[effect.event].append(effect)
        self.suicides = {effect.pid for effect in history.effects if self._is_deadly(effect.event)}

    def hurts(self, fault: Fault, pid: int, began: float | None, until: float | None) -> bool:
        """Whether it may have cost the process the job it had between those (monotonic) times;
        None: not known."""
        if pid not in fault.pids and fault.target not in _EVERYWHERE:
            return False
        too_late = until is not None and fault.began > until
        too_early = began is not None and fault.ended + _AFTERMATH_SECONDS < began
        return not (too_late or too_early)

    def monotonic(self, moment: datetime | None) -> float | None:
        """MongoDB's time as the journal's."""
        return None if moment is None else moment.timestamp() - self.history.wall_offset

    def _is_deadly(self, event: str) -> bool:
        mark = self.documents.get(event, {}).get("payload", {}).get("n")
        plan = self.history.plans.get(mark)
        return plan is not None and bool(plan.payload.get("die"))
