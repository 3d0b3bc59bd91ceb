"""One run that is recorded and then judged: clients and faults in, a report out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.faults.checker import Needed, Report, check
from tests.faults.history import Recorder
from tests.faults.processes import Process
from tests.faults.recording import Client
from tests.faults.stack import EVENT_TYPES, Stack
from tests.faults.waiting import eventually

_OPEN = {"status": {"$in": ["pending", "processing"]}, "payload.n": {"$exists": True}}


class Trial:
    """Uses a stack for one history; `client` posts to `web`."""

    def __init__(self, stack: Stack, web: Process) -> None:
        self.stack, self.web = stack, web
        self.recorder = Recorder()
        self.client = Client(stack.api_of(web), self.recorder)
        self._began = time.monotonic()

    @property
    def journal(self) -> list[str]:
        """The events whose handlers have ended well, one entry a run."""
        return [e.event for e in self.stack.journal.effects() if e.what == "end"]

    def wait_for(self, *events: str | None, status: str, within: float = 8.0) -> None:
        """Looks by recorded GETs until the events have the status; goes on where they never do:
        what that means is for the checker to say."""
        end = time.monotonic() + within
        waiting = [event for event in events if event is not None]
        while waiting and time.monotonic() < end:
            seen = [self.client.get(event) for event in waiting]
            waiting = [
                event
                for event, document in zip(waiting, seen, strict=True)
                if document is None or document["status"] != status
            ]
            time.sleep(0.05)

    def drain(self, within: float) -> None:
        """Heals everything, and gives what is open the time to end."""
        self.stack.undo_faults()
        with suppress(AssertionError):  # the checker says which are stuck
            eventually(lambda: self._open_jobs() == 0, within=within, every=0.2)

    def judge(self, needed: Needed | None = None) -> Report:
        """Takes down what MongoDB and the journal have, and applies the rules."""
        history = self.recorder.history
        jobs = self.stack.database["jobs"]
        history.documents = list(jobs.find({"payload.n": {"$exists": True}}))
        history.effects = [e for e in self.stack.journal.effects() if e.at >= self._began]
        counters = self.stack.database["counters"].find({"_id": {"$regex": "^journal"}})
        history.counters = {d["_id"]: d for d in counters}
        return check(history, needed)

    def _open_jobs(self) -> int:
        return self.stack.database["jobs"].count_documents(_OPEN)


@contextmanager
def trial(stack: Stack, bug: str = "", *, workers: int = 2) -> Iterator[Trial]:
    """A trial on processes of its own, in which a bug is planted if one is named."""
    env = {"PLANTED_BUG": bug, "EVENT_TYPE_MODULES": f"{EVENT_TYPES},tests.faults.planted"}
    with stack.only_workers(workers, **env), stack.web(**env) as web:
        stack.forget()
        yield Trial(stack, web)
