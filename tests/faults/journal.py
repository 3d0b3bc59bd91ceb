"""Reads what the handlers of `journal_types` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Effect:
    """One line: a run's start, or its end (`end`, `fail`, `cancel`)."""

    what: str
    event: str
    attempt: int
    token: str
    """The same for start and end of one run; the result of the job, if it is this run's."""
    pid: int
    at: float
    """Monotonic seconds, the same clock for every process of a machine."""


class Journal:
    """The file, read again and again; only whole lines count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._read = 0
        self._effects: list[Effect] = []

    def effects(self) -> list[Effect]:
        with self.path.open("rb") as file:
            file.seek(self._read)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        self._effects += [Effect(**json.loads(line)) for line in whole.splitlines()]
        return list(self._effects)

    def of(self, event: str, what: str | None = None) -> list[Effect]:
        """The effects of one event, all or those of one kind."""
        return [e for e in self.effects() if e.event == event and what in (None, e.what)]

    def starts(self, event: str) -> list[Effect]:
        return self.of(event, "start")

    def ends(self, event: str) -> list[Effect]:
        return self.of(event, "end")
