"""Makes the events of schedules, each at its tick: the work of whoever leads the sweep.

Two leaders at once, a leader that dies anywhere, or one that was frozen for a year, make no tick
twice and lose none: see `service.store.ticks`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import lru_cache

from service.catalog import Catalog
from service.clock import ServerClock, to_ms
from service.crash import crash_point
from service.ids import new_id
from service.job import Hint
from service.store import Counters, Deltas, JobStore, WorkerStore
from service.store.documents import hint_of
from service.store.mongo import Document
from service.store.schedules import new_token
from service.store.ticks import NEVER, Move, Ticks
from service.ticks import Timing

_log = logging.getLogger(__name__)
BEAT_SECONDS = 0.5
LATE_AT_MOST = timedelta(seconds=15)
"""A tick that comes later counts as missed: longer than it takes until somebody else leads."""
_RECOVER_SECONDS = 5.0
_DISCARD_AFTER = timedelta(seconds=10)
_MOST_LOOKED_AT, _MOST_TOGETHER = 2_000, 500
_MOST_BYTES = 4_194_304
_CHUNKS_AT_ONCE = 3
_MILLISECOND = timedelta(milliseconds=1)


class Confirmer:
    """Makes the events of ticks due that were chosen for good, and counts and hints at them."""

    def __init__(
        self,
        ticks: Ticks,
        counters: Counters,
        clock: ServerClock,
        send: Callable[[Sequence[Hint]], object],
    ) -> None:
        self._ticks, self._counters, self._clock, self._send = ticks, counters, clock, send

    def confirm(self, events: Sequence[Document]) -> None:
        confirmed = self._ticks.confirm([event["_id"] for event in events], self._clock.now())
        crash_point("schedules.after_confirm")
        if confirmed == len(events):
            deltas = Deltas()
            for event in events:
                deltas.add(event["type"], "received")
            self._counters.add(deltas)
        self._send([hint_of(event) for event in events])

    def recover(self, now: datetime) -> None:
        """What a leader has left behind."""
        unconfirmed = self._ticks.unconfirmed()
        if chosen := [event for event in unconfirmed if event["is_chosen"]]:
            self.confirm(chosen)
        before = now - _DISCARD_AFTER
        stale = [e["_id"] for e in unconfirmed if e["is_stale"] and e["created_at"] < before]
        if stale:
            self._ticks.discard(stale)


class Scheduler:
    """`beat` is called every `BEAT_SECONDS`. `leads()`: whether this process does; `send(hints)`:
    tells workers of events that are due."""

    def __init__(
        self,
        *,
        ticks: Ticks,
        jobs: JobStore,
        workers: WorkerStore,
        counters: Counters,
        clock: ServerClock,
        catalog: Catalog,
        worker_id: str,
        leads: Callable[[], bool],
        send: Callable[[Sequence[Hint]], object],
    ) -> None:
        self._ticks, self._jobs, self._workers = ticks, jobs, workers
        self._clock, self._catalog, self._worker_id = clock, catalog, worker_id
        self._leads = leads
        self._confirmer = Confirmer(ticks, counters, clock, send)
        self._since: datetime | None = None
        """Since when some worker has been there; None: not asked since this one began to lead."""
        self._is_known = False
        self._recover_at = 0.0
        self._confirmed: dict[str, str] = {}
        """The last event of each schedule that this process has confirmed itself."""
        self._broken: set[str] = set()

    def beat(self) -> None:
        """Makes what ticks until the next beat, each at its moment. Raises `StoreUnavailable`."""
        until = time.monotonic() + BEAT_SECONDS
        try:
            if not self._is_known:
                self._workers.watch(self._worker_id, self._clock.now())
                self._is_known = True
            if not self._leads():
                self._since = None
                return
            self._take_over()
            while self._leads() and (wait_seconds := self._make_due(until)) is not None:
                time.sleep(wait_seconds)
        except Exception:
            self._recover_at = 0.0
            raise

    def _take_over(self) -> None:
        if self._since is None:
            self._since = self._workers.watched_since() or self._clock.now()
            self._recover_at = 0.0
        if time.monotonic() >= self._recover_at:
            self._recover_at = time.monotonic() + _RECOVER_SECONDS
            self._confirmer.recover(self._clock.now())

    def _make_due(self, until: float) -> float | None:
        """Makes what is due; how long to wait for what follows within this beat, None: nothing
        does."""
        now = self._clock.now()
        left = timedelta(seconds=until - time.monotonic())
        soon = self._ticks.due(now + max(left, timedelta(0)), _MOST_LOOKED_AT)
        due = [schedule for schedule in soon if schedule["next_run_at"] <= now]
        if due:
            made = self._run_all(list(_in_chunks(due)), now)
            return 0.0 if made else None
        return (soon[0]["next_run_at"] - now).total_seconds() if soon else None

    # one tick of each of some schedules

    def _run_all(self, chunks: Sequence[Sequence[str]], now: datetime) -> int:
        """While MongoDB has one chunk, another one is made ready: they share no schedule."""
        if len(chunks) == 1:
            return self._run(chunks[0], now)
        with ThreadPoolExecutor(_CHUNKS_AT_ONCE, thread_name_prefix="schedules") as pool:
            return sum(pool.map(lambda names: self._run(names, now), chunks))

    def _run(self, names: Sequence[str], now: datetime) -> int:
        """How many schedules were moved on, at least as far as this process knows."""
        schedules = [s for s in self._ticks.read(names) if _is_due(s, now)]
        busy = self._busy(schedules)
        moves, offered = list[Move](), dict[str, Document]()
        for schedule in schedules:
            try:
                move, event = self._next(schedule, schedule["_id"] in busy, now)
            except Exception:  # a document that was changed by hand holds up no other
                self._complain(schedule["_id"])
                continue
            moves.append(move)
            if event is not None:
                offered[event["_id"]] = event
        self._offer(list(offered.values()), schedules)
        if moves and self._leads():
            chosen = self._ticks.choose(moves)
            crash_point("schedules.after_choice")
            self._settle(offered, chosen)
            return len(moves)
        return 0

    def _busy(self, schedules: Sequence[Document]) -> set[str]:
        """Those that wait for their last event."""
        last = {s["_id"]: s["last_event_id"] for s in schedules if s["overlap"] == "skip"}
        ids = [event_id for event_id in last.values() if event_id is not None]
        still_open = set(ids) - set(self._jobs.requests.finals(ids)) if ids else set()
        return {name for name, event_id in last.items() if event_id in still_open}

    def _next(
        self, schedule: Document, is_busy: bool, now: datetime
    ) -> tuple[Move, Document | None]:
        """The schedule's way to its next tick, and the event of this one."""
        tick, timing = schedule["next_run_at"], Timing.of(schedule)
        since = max(self._since or now, now - LATE_AT_MOST)
        is_missed = tick < since
        event = None
        if not is_busy and not (is_missed and schedule["missed"] == "none"):
            event = self._event(schedule, tick, now)
        move = Move(
            name=schedule["_id"],
            token=schedule["token"],
            new_token=new_token(),
            next_run_at=_after(timing, since - _MILLISECOND if is_missed else tick),
            event_id=None if event is None else event["_id"],
            ran_at=now if is_missed else tick,
        )
        return move, event

    def _event(self, schedule: Document, tick: datetime, now: datetime) -> Document:
        """What is offered for this tick: as it was checked when the schedule was put, with its
        type's options of today."""
        given = schedule["event"]
        own: Document = {
            "_id": new_id(to_ms(now)),
            "type": given["type"],
            "payload": given["payload"],
            "created_at": now,
            "updated_at": now,
            "next_attempt_at": NEVER,
            "schedule": schedule["_id"],
            "tick_at": tick,
            "unconfirmed": schedule["token"],
        }
        event_type = self._catalog.get(given["type"])
        if event_type is not None:
            most = given.get("max_attempts", event_type.max_attempts)
            own |= {"queue": event_type.queue, "max_attempts": most, "budget": most}
            own["time_limit_ms"] = given.get("time_limit_ms", event_type.time_limit_ms)
        template: Document = schedule["template"]
        return template | own

    def _offer(self, events: Sequence[Document], schedules: Sequence[Document]) -> None:
        """Before that, what was chosen last is confirmed: the next choice forgets it."""
        unsure = [
            schedule["chosen"]
            for schedule in schedules
            if schedule["chosen"] is not None
            and self._confirmed.get(schedule["_id"]) != schedule["chosen"]
        ]
        if unsure:
            self._ticks.confirm(unsure, self._clock.now())
        if events:
            for answer in self._jobs.new_jobs.accept(events):
                if isinstance(answer, Exception):
                    raise answer
        crash_point("schedules.after_offer")

    def _settle(self, offered: dict[str, Document], chosen: set[str]) -> None:
        """What wasn't chosen is left to a later look: to take an old answer for the truth would
        lose an event here, and costs nothing there."""
        if chosen:
            self._confirmer.confirm([offered[event_id] for event_id in chosen])
            self._confirmed |= {offered[i]["schedule"]: i for i in chosen}

    def _complain(self, name: str) -> None:
        if name not in self._broken:
            self._broken.add(name)
            _log.exception("schedule %s can't tick", name)


@lru_cache(maxsize=4_096)
def _after(timing: Timing, moment: datetime) -> datetime | None:
    """Of many schedules that tick at the same moment, many have the same expression."""
    return timing.after(moment)


def _is_due(schedule: Document, now: datetime) -> bool:
    tick = schedule["next_run_at"]
    return tick is not None and tick <= now


def _in_chunks(due: Sequence[Document]) -> Iterator[list[str]]:
    """Their names, as many at once as MongoDB and memory take well."""
    names, size = list[str](), 0
    for schedule in due:
        names.append(schedule["_id"])
        size += schedule["size"]
        if len(names) == _MOST_TOGETHER or size >= _MOST_BYTES:
            yield names
            names, size = [], 0
    if names:
        yield names
