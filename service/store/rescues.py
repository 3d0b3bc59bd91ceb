"""How many jobs a dead worker held when its rescue began, whatever became of that rescue since.

Whether a job is to blame for the death of its process depends on how many others were held beside
it (`transition_after_death`). A rescue is many writes; where it breaks off (its leader
dies, MongoDB's primary steps down in the middle of one), the next one finds fewer, and the last one
left would seem to have been alone. So the number is noted by majority before the first is taken
away, in a document of its own: the worker's document may be gone (its neighbours remove it), and to
make it anew would bring the worker back to life; a mark in each job would write them all twice.

- The first note counts, later ones leave it. It goes when none of the worker's jobs is left.
- Two leaders at once do no harm: who finds fewer jobs than there were reads the note after them,
  and so finds it, or else it has gone because all jobs have: then all his writes are fenced off.
- One job alone isn't noted: its rescue is one write, done or not.
- A worker that was only frozen may come back with its note still there. The number is then too
  large, if anything, which blames nobody wrongly. A note that nobody removes expires.
"""

from __future__ import annotations

from pymongo.collection import Collection
from pymongo.database import Database

from service.store.guard import mongo_errors
from service.store.mongo import Document


class Rescues:
    """The collection `rescues`. Every method raises `StoreUnavailable`."""

    def __init__(self, database: Database[Document]) -> None:
        self._jobs: Collection[Document] = database["jobs"]
        self._rescues: Collection[Document] = database["rescues"]

    def begin(self, worker: str) -> None:
        """Notes how many jobs the worker holds, where no rescue has begun before."""
        if (count := self._left(worker)) > 1:
            note = {"$setOnInsert": {"held": count}, "$currentDate": {"at": True}}
            with mongo_errors():
                self._rescues.update_one({"_id": worker}, note, upsert=True)

    def held(self, worker: str) -> int:
        """How many jobs it held when its rescue began. Read the jobs before this, never after."""
        count = self._left(worker)
        with mongo_errors():
            note = self._rescues.find_one({"_id": worker})
        return count if note is None else max(count, note["held"])

    def end(self, worker: str) -> None:
        """Forgets the number, if all its jobs are rescued."""
        if self._left(worker) == 0:
            with mongo_errors():
                self._rescues.delete_one({"_id": worker})

    def _left(self, worker: str) -> int:
        held = {"status": "processing", "worker": worker}
        with mongo_errors():
            return self._jobs.count_documents(held, hint="by_status")
