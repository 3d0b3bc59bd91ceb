"""Lanes: what waits, by what can be blocked as one; a hint is spent when it is taken.

Each lane (today: the jobs of one type in one queue) has three lists of messages in Redis (high,
normal, low), so that no look passes over what it isn't looking for. They hold a bounded window of
the backlog; what finds no room sets the lane's *overflow*: MongoDB has more, and whoever finds the
lane half empty *pours* the next ones in.

Nothing is acked. What a process had taken when it was killed is due in MongoDB and has no hint,
and the dispatcher sends it again. Who is idle blocks on the *fronts*, a short list a queue, which
gets the first hints of an empty lane and, after each take, the next ones of a lane that has more.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import redis

from service.job import Hint, Priority
from service.queue.junk import put_aside
from service.queue.lane import Lane, LaneKeys, lane_of
from service.queue.messages import hint_in, job_id_in, lane_message
from service.queue.pours import Pours

__all__ = ["Lane", "Lanes", "Taken", "Woken"]

_SCRIPTS = Path(__file__).parent / "lua" / "lanes"
_PRIORITIES = (Priority.HIGH.value, Priority.NORMAL.value, Priority.LOW.value)
_NUMBERS = {priority: number for number, priority in enumerate(_PRIORITIES, 1)}
_TELL_OF = 300
"""So many lanes that have something are told of at most: random ones where there are more."""
_LOCK_SECONDS = 5.0
"""So long nobody else pours a lane whose pourer says nothing more."""
_POURS = 4
_ALL_WINDOWS, _LEAST_WINDOW = 10, 64
"""As in `lua/lanes/common.lua`."""


class Taken(NamedTuple):
    """What a take gave, and what it says of all lanes."""

    hints: list[Hint]
    """Never more of a lane than wanted. The same job may come twice."""
    waiting: set[Lane]
    """Lanes that have more, of any queue; some hundreds at most, random ones of more."""
    to_pour: list[Lane]
    """Lanes to pour, whose lock the caller now holds: `pour_done` gives it back."""
    junk: int = 0
    """How many messages that are no hints were put aside."""


class Woken(NamedTuple):
    """What waiting gave; neither where the time was over."""

    hint: Hint | None
    junk: int = 0
    """How many messages that are no hints were put aside."""


class Lanes(Pours):
    """Every method raises `redis.RedisError`."""

    def __init__(self, client: redis.Redis, namespace: str, window: int) -> None:
        super().__init__(client, LaneKeys(namespace))
        self._window = window
        self._push, self._take, self._give_back = map(self._script, ("push", "take", "give_back"))

    def _script(self, name: str) -> Any:
        texts = [(_SCRIPTS / f"{part}.lua").read_text() for part in ("common", name)]
        return self._client.register_script("\n".join(texts))

    # out

    def push(self, hints: Sequence[Hint], *, past_overflow: bool = False) -> int:
        """Adds hints to their lanes, in one round trip; how many found room, which are the first
        ones of each lane. The rest sets its lane's overflow, past which only a pour adds."""
        by_lane: dict[tuple[str, str], list[Hint]] = defaultdict(list)
        for hint in hints:
            by_lane[hint.queue, hint.type].append(hint)
        args: list[Any] = [self._keys.prefix, self._window, int(past_overflow)]
        for lane, group in by_lane.items():
            args += (Lane(*lane).name, len(group))
            for hint in group:
                args += (_list_number(hint.priority), lane_message(hint))
        return int(self._push(keys=[self._keys.known], args=args)) if hints else 0

    def give_back(self, hints: Sequence[Hint], *, wake: bool = False) -> None:
        """Puts hints back to the heads of their lanes, in their order. `wake`: to the fronts, as
        far as there is room, where another worker that is idle finds them at once."""
        args: list[Any] = [self._keys.prefix, self._window, int(wake)]
        for hint in hints:
            lane = Lane(hint.queue, hint.type).name
            args += (lane, _list_number(hint.priority), lane_message(hint))
        if hints:
            self._give_back(keys=[self._keys.known], args=args)

    # in

    def take(
        self,
        wants: Mapping[Lane, int],
        most: int,
        first: Sequence[int],
        queues: Sequence[str],
    ) -> Taken:
        """Takes up to `most` hints, and of each lane as many as wanted, in turns.

        `first`: how many of high, normal, low before any other. What lies in the fronts of the
        `queues` comes before; what of it isn't wanted goes to the head of its lane. Without wants
        this is just a look, which leaves all where it is.
        """
        args: list[Any] = [self._keys.prefix, self._window, int(time.time() * 1000), most, *first]
        args += (_TELL_OF, int(_LOCK_SECONDS * 1000), _POURS, len(queues), *queues)
        for lane, count in _in_turns(wants):
            args += (lane.name, count)
        groups, waiting, to_pour, junk = self._take(keys=[self._keys.known], args=args)
        return Taken(
            [hint for group in groups for hint in _hints_of(*group)],
            set(map(lane_of, waiting)),
            list(map(lane_of, to_pour)),
            int(junk),
        )

    def wait(self, client: redis.Redis, queues: Sequence[str], seconds: float) -> Woken:
        """Blocks on the fronts of the queues, until there is something or the time is over.
        `client`: a connection of the caller's own, which it may break off."""
        popped: Any = client.blpop([self._keys.front(queue) for queue in queues], seconds)
        if popped is None:
            return Woken(None)
        queue, message = self._keys.queue_of_front(popped[0]), bytes(popped[1])
        hint = hint_in(queue, message)
        if hint is None:
            put_aside(self._client, self._keys.prefix, queue, [message])
        return Woken(hint, junk=int(hint is None))

    # what there is

    def window_of_one(self) -> int:
        """How many hints a lane may have now: fewer, the more lanes there are."""
        lanes = max(1, int(self._client.scard(self._keys.known)))
        return min(self._window, max(_LEAST_WINDOW, _ALL_WINDOWS * self._window // lanes))

    def known(self) -> set[Lane]:
        """All lanes that have hints in their lists, or an overflow."""
        members: Any = self._client.smembers(self._keys.known)
        return set(map(lane_of, members))

    def make_known(self, lanes: Iterable[Lane]) -> None:
        """Has workers look at these lanes, whatever is known of them."""
        if names := [lane.name for lane in lanes]:
            self._client.sadd(self._keys.known, *names)

    def all_hints(self) -> list[Hint]:
        """Every hint that Redis holds, in lanes or fronts: a long look, for people who ask."""
        keys = [(lane.queue, key) for lane in self.known() for key in self._keys.lists(lane)]
        fronts = self._client.scan_iter(match=self._keys.front("*"), count=1_000)
        keys += [(self._keys.queue_of_front(front), front.decode()) for front in fronts]
        found: list[Hint] = []
        for queue, key in keys:
            messages: Any = self._client.lrange(key, 0, -1)
            hints = [hint_in(queue, message) for message in messages]
            found += [hint for hint in hints if hint is not None]
        return found

    def listed(self, lane: Lane) -> set[str]:
        """The jobs of the lane that have a hint; those in its queue's front may be of others."""
        pipeline = self._client.pipeline(transaction=False)
        for key in (*self._keys.lists(lane), self._keys.front(lane.queue)):
            pipeline.lrange(key, 0, -1)
        return {job_id_in(message) for messages in pipeline.execute() for message in messages}


def _in_turns(wants: Mapping[Lane, int]) -> list[tuple[Lane, int]]:
    """From another one on each time, so that none is always the last."""
    lanes = [(lane, count) for lane, count in wants.items() if count > 0]
    start = random.randrange(len(lanes)) if lanes else 0
    return lanes[start:] + lanes[:start]


def _hints_of(name: bytes, number: int, *ids: bytes) -> list[Hint]:
    queue, job_type = lane_of(name)
    priority = _PRIORITIES[number - 1]
    return [Hint(job_id.decode(), job_type, queue, priority) for job_id in ids]


def _list_number(priority: str) -> int:
    return _NUMBERS.get(priority, 2)
