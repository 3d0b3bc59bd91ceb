"""How a tick of a schedule becomes exactly one event, in four writes, whoever dies between them.

1. *Offer*: a new event is inserted that nobody runs: it is due in the year 9999 and `unconfirmed`,
   by the token of the schedule's state that it was made for.
2. *Choose*: one guarded update moves the schedule on from that state: next tick, new token, and
   `chosen`, the offered event's id. States never come back, so of all that were offered for a tick,
   by however many leaders, one is chosen. This update alone decides.
3. *Confirm*: the chosen event becomes due, and is no longer `unconfirmed`. An update, which makes
   nothing where the event isn't there: so confirming again, also long after it has run and expired,
   does nothing.
4. Before the next choice the last chosen event is confirmed, by whoever makes that choice. So
   `chosen` may forget it then.

What was offered and not chosen is *discarded* once the schedule is in another state: then it never
can be, and if it ever was, 4 says that it is confirmed and no longer looks discardable. Nothing of
this rests on how long events are kept, on clocks, or on there being one leader at a time.

All reads are of what a majority has: a choice that a new primary might take back must neither
confirm nor discard anything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pymongo.database import Database
from pymongo.read_concern import ReadConcern

from service.store import commands
from service.store.guard import mongo_errors
from service.store.mongo import Document

NEVER = datetime(9999, 1, 1, tzinfo=UTC)
"""When what was only offered is due."""
ACCEPTED: Document = {"unconfirmed": {"$exists": False}}
"""For queries of clients: what is only offered is no event yet, and may never become one."""
_DUE_FIELDS = {"next_run_at": 1, "size": 1}
_MOST_UNCONFIRMED = 1_000


@dataclass(frozen=True, slots=True)
class Move:
    """A schedule's way from one tick to the next. `event_id`: the event offered for the tick; None:
    it makes none."""

    name: str
    token: str
    new_token: str
    next_run_at: datetime | None
    event_id: str | None = None
    ran_at: datetime | None = None

    def statement(self) -> Document:
        """As a guarded update."""
        fields: Document = {"token": self.new_token, "next_run_at": self.next_run_at}
        if self.event_id is not None:
            fields |= {"chosen": self.event_id, "last_event_id": self.event_id}
            fields["last_run_at"] = self.ran_at
        return {"q": {"_id": self.name, "token": self.token}, "u": {"$set": fields}}


class Ticks:
    """Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._database, majority = database, ReadConcern("majority")
        self._schedules = database.get_collection("schedules", read_concern=majority)
        self._jobs = database.get_collection("jobs", read_concern=majority)

    def due(self, before: datetime, limit: int) -> list[Document]:
        """Schedules that tick until then, soonest first: `_id`, `next_run_at`, `size`."""
        with mongo_errors():
            found = self._schedules.find(
                {"next_run_at": {"$lte": before}},
                _DUE_FIELDS,
                sort=[("next_run_at", 1)],
                limit=limit,
                batch_size=limit,
            )
            return list(found)

    def read(self, names: Sequence[str]) -> list[Document]:
        """All of these schedules that are still there."""
        with mongo_errors():
            return list(self._schedules.find({"_id": {"$in": list(names)}}))

    def choose(self, moves: Sequence[Move]) -> set[str]:
        """Moves the schedules on; the ids of the events that were chosen."""
        offered = {move.name: move.event_id for move in moves if move.event_id is not None}
        with mongo_errors():
            statements = [move.statement() for move in moves]
            matched = commands.update(self._database, "schedules", statements)
            if matched == len(moves):
                return set(offered.values())
            return self._chosen_of(offered)

    def _chosen_of(self, offered: dict[str, str]) -> set[str]:
        """Somebody else was there as well. One that was chosen and has been replaced since was
        confirmed by whoever replaced it."""
        found = self._schedules.find({"_id": {"$in": list(offered)}}, {"chosen": 1})
        return {d["chosen"] for d in found if d["chosen"] == offered[d["_id"]]}

    def confirm(self, event_ids: Sequence[str], now: datetime) -> int:
        """Makes chosen events due; how many weren't before. One that a client has cancelled
        meanwhile stays as it is."""
        which: Document = {"_id": {"$in": list(event_ids)}, "unconfirmed": {"$exists": True}}
        marked: Document = {"$unset": {"unconfirmed": ""}}
        due = {"$set": {"next_attempt_at": now, "updated_at": now}}
        with mongo_errors():
            return commands.update(
                self._database,
                "jobs",
                [
                    {"q": which | {"next_attempt_at": NEVER}, "u": marked | due, "multi": True},
                    {
                        "q": which | {"next_attempt_at": {"$ne": NEVER}},
                        "u": marked,
                        "multi": True,
                    },
                ],
            )

    def unconfirmed(self) -> list[Document]:
        """Offered events that nobody has confirmed, with `is_chosen`, and `is_stale` where they
        can't be chosen any more: some thousand at most."""
        fields = {"schedule": 1, "unconfirmed": 1, "created_at": 1, "type": 1}
        fields |= {"queue": 1, "priority": 1}
        with mongo_errors():
            events = list(
                self._jobs.find(
                    {"unconfirmed": {"$exists": True}},
                    fields,
                    limit=_MOST_UNCONFIRMED,
                    hint="unconfirmed",
                )
            )
            if not events:
                return []
            # After the events: what was offered for a state can't be seen before that state.
            names = {"$in": list({event["schedule"] for event in events})}
            states = self._schedules.find({"_id": names}, {"token": 1, "chosen": 1})
            by_name: dict[str, Document] = {d["_id"]: d for d in states}
        return [_judged(event, by_name.get(event["schedule"], {})) for event in events]

    def discard(self, event_ids: Collection[str]) -> int:
        """Removes offered events that can't be chosen any more; how many."""
        which: Document = {"_id": {"$in": list(event_ids)}, "unconfirmed": {"$exists": True}}
        with mongo_errors():
            return self._database["jobs"].delete_many(which).deleted_count


def _judged(event: Document, schedule: Document) -> Document:
    is_chosen = schedule.get("chosen") == event["_id"]
    is_stale = not is_chosen and schedule.get("token") != event["unconfirmed"]
    return event | {"is_chosen": is_chosen, "is_stale": is_stale}
