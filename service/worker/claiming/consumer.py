"""Where jobs come from: what a consumer fetches together, it claims together.

One consumer thread a queue, which Dramatiq runs. Its sources, in this order: suspects, messages in
Redis, and (where Redis is away, or holds only a part of the backlog) MongoDB itself. It never
polls while there is nothing: it blocks in Redis, which wakes it for a single message.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import redis
from dramatiq.broker import Consumer, MessageProxy

from service.catalog import EventType
from service.crash import crash_point
from service.errors import StoreUnavailable
from service.ids import is_id
from service.job import AttemptResult, Hint, Job, Outcome, transition_after
from service.metrics.counts import WORKER_COUNTS
from service.queue.broker import PulseBroker
from service.queue.messages import hint_message, job_id_of
from service.store import Deltas
from service.worker.claiming.due import DueJobs
from service.worker.claiming.inbox import Junk, read_message
from service.worker.claiming.shares import SHARES, first_ones
from service.worker.claiming.supply import Supply
from service.worker.finishing.finisher import finish
from service.worker.registry import Held

_log = logging.getLogger(__name__)
_MOST = 512
_MIXED_LOOK = 16
_BLOCK_SECONDS = 5.0
_QUIET_SECONDS = 5.0
_PAUSE_SECONDS = 0.25
_FULL_SECONDS = 0.05
"""So long the jobs behind those that find no room wait for the next look."""
_OVERFLOW_SECONDS = 0.1
"""So long Redis isn't asked again, where it had nothing and the backlog goes on in MongoDB."""
_BESIDE_SECONDS = 0.1
_BESIDE_SHARE = 5
"""Looking for jobs beside those of a slow type may cost a long scan: if there was nothing, the next
look comes after so many times as long."""


class Won(NamedTuple):
    """The ids of the jobs that a claim took."""

    held: set[str]
    too_large: set[str]
    """Given back: there is no room in memory for them now."""


class _Draining(Exception):
    """The process stops: nothing more is claimed."""


class JobConsumer(Consumer):
    """Yields messages whose jobs this process has claimed; None when there is nothing now."""

    def __init__(self, broker: PulseBroker, queue: str, supply: Supply) -> None:
        self._broker, self._queue, self._supply = broker, queue, supply
        self._ready = supply.ready[queue]
        self._types = [t for t in supply.catalog if t.queue == queue]
        self._kinds = {t.is_async for t in self._types}
        self._due = DueJobs(supply, queue)
        self._idle = False
        self._full: list[EventType] = []
        """Types whose jobs found no room at the last look."""
        self._look = _MIXED_LOOK
        """How many jobs to look at: more while all find room, as many as found it otherwise."""
        self._rng = random.Random()
        self._pause = threading.Event()
        self._look_beside_at = 0.0
        self._overflow_until = 0.0

    def __next__(self) -> MessageProxy | None:
        if not self._ready:
            try:
                self._refill()
            except StoreUnavailable as error:
                _log.warning("no jobs can be claimed: %s", error)
                self._supply.doubt()
                self._wait(self._rng.uniform(_PAUSE_SECONDS, 4 * _PAUSE_SECONDS))
            except _Draining:
                self._wait(_PAUSE_SECONDS)
        return self._ready.popleft() if self._ready else None

    # Dramatiq asks for these when a message is processed. A job's message is acked by the
    # committer, once its outcome is written; only other messages are acked here.

    def ack(self, message: MessageProxy) -> None:
        self._done(message, "ack")

    def nack(self, message: MessageProxy) -> None:
        self._done(message, "nack")

    def _done(self, message: MessageProxy, command: str) -> None:
        if self._supply.catalog.get(message.actor_name) is not None:
            return
        try:
            getattr(self._broker, f"do_{command}")(self._queue, message.options["redis_message_id"])
        except redis.RedisError as error:
            _log.warning("a late %s costs a duplicate: %s", command, error)

    def requeue(self, messages: Any) -> None:
        """Jobs are given back through MongoDB; other messages return to their list."""
        others = [m for m in messages if self._supply.catalog.get(m.actor_name) is None]
        keys = [m.options["redis_message_id"] for m in others]
        try:
            if keys:
                self._broker.do_requeue(self._queue, *keys)
        except redis.RedisError as error:  # raised, it would end Dramatiq's consumer thread
            _log.warning("%d messages stay unacked: %s", len(keys), error)

    def close(self) -> None:
        """Claimed jobs stay ready: where Dramatiq starts a consumer anew after an error, that one
        goes on with them, and a process that stops gives them back."""
        jobs = [m for m in self._ready if self._supply.catalog.get(m.actor_name) is not None]
        self.requeue(self._ready)
        self._ready.clear()
        self._ready.extend(jobs)

    # refill

    def _refill(self) -> None:
        supply = self._supply
        if supply.draining.is_set() or not supply.lease.is_valid:
            self._wait(_PAUSE_SECONDS)
            return
        if self._full:
            supply.registry.wait_until_worth_a_claim(self._full, _FULL_SECONDS)
            self._full = []
        elif self._types and len(self._full_types()) == len(self._types):
            supply.registry.wait_until_worth_a_claim(self._types, 1.0)
            return
        if self._types and supply.suspects_wait.is_set():
            self._take_suspects()
        elif supply.redis_away.is_set():
            self._take_without_redis()
        elif not self._idle and supply.registry.clogged() & {t.name for t in self._types}:
            self._take_beside_the_slow()
        else:
            self._take_from_redis()

    def _take_without_redis(self) -> None:
        full = self._full_types()
        if self._take_from_mongo(full):
            return
        if full:  # there may be more of those
            self._supply.registry.wait_until_worth_a_claim(full, _PAUSE_SECONDS)
        else:
            self._wait(_PAUSE_SECONDS)

    def _take_beside_the_slow(self) -> None:
        """Where a slow type holds all that it may, its messages are no way to the jobs behind them:
        those of other types come straight from MongoDB, and are looked for now and then."""
        began = time.monotonic()
        if began < self._look_beside_at:
            self._supply.registry.wait_for_change(self._look_beside_at - began)
            if self._has_room_for_all():
                self._take_from_redis()
        elif not self._take_from_mongo(self._full_types()):
            took = time.monotonic() - began
            self._look_beside_at = began + max(_BESIDE_SECONDS, _BESIDE_SHARE * took)

    def _has_room_for_all(self) -> bool:
        return all(self._supply.registry.room(t) > 0 for t in self._types)

    def _take_from_redis(self) -> None:
        try:
            if self._idle:
                self._take_when_woken()
            else:
                self._take_at_once(b"")
        except redis.RedisError as error:
            _log.warning("Redis is away, jobs come straight from MongoDB: %s", error)
            self._supply.redis_away.set()

    def _take_at_once(self, popped: bytes) -> None:
        if not popped and time.monotonic() < self._overflow_until:
            self._take_overflow()
            return
        most = self._most()
        fetched = self._broker.fetch(self._queue, most, first_ones(most, self._rng), popped)
        crash_point("worker.after_fetch")
        if fetched.messages:
            self._take(fetched.messages)
        elif fetched.overflow and self._types:
            self._overflow_until = time.monotonic() + _OVERFLOW_SECONDS
            self._take_overflow()
        else:
            self._idle = True

    def _take_when_woken(self) -> None:
        """Blocks until there is something; an idle consumer costs Redis next to nothing."""
        popped = self._block()
        if popped is not None:
            self._idle = False
            if not self._claim_popped(popped):
                self._take_at_once(popped)
        elif self._types and self._broker.has_overflow(self._queue):
            self._idle = False

    def _claim_popped(self, key: bytes) -> bool:
        """Claims the job of a message that came alone, by its key: reading the message first would
        cost a round trip on the way of every job. False where the message must be read.

        What goes wrong here leaves a job without a message, which the sweep finds.
        """
        supply = self._supply
        job_id = job_id_of(key)
        if not (self._types and is_id(job_id) and self._has_room_for_all()):
            return False
        crash_point("worker.after_fetch")
        types = [t.name for t in self._types]
        try:
            won = self._claim(
                lambda now, _: supply.store.claims.claim([job_id], supply.worker_id, now, types),
                popped_key=key,
            )
        except _Draining:
            return False
        except StoreUnavailable:
            self._forget(key)
            raise
        if not won.held:
            self._forget(key)
        return True

    def _forget(self, key: bytes) -> None:
        self._broker.forget_many(self._broker.client, self._queue, [key])

    def _block(self) -> bytes | None:
        """Waits for a message, without polling; its id, taken off its list."""
        try:
            popped: Any = self._supply.wake_client.blpop(
                self._broker.list_keys(self._queue), _BLOCK_SECONDS
            )
        except redis.RedisError:
            if self._supply.draining.is_set() or self._supply.redis_away.is_set():
                return None  # woken on purpose, by closing the connection
            raise
        return None if popped is None else bytes(popped[1])

    def _take(self, messages: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Claims what the messages hint at; puts junk aside; gives back what finds no room."""
        wanted: dict[str, tuple[bytes, MessageProxy]] = {}
        done: list[bytes] = []
        excess: list[tuple[bytes, MessageProxy]] = []
        room = self._rooms()
        for key, data in messages:
            try:
                message = read_message(key, data, self._queue, self._broker, self._supply.catalog)
            except Junk as junk:
                self._put_aside(key, str(junk))
                continue
            if self._supply.catalog.get(message.actor_name) is None:
                self._ready.append(message)
            elif message.args[0] in wanted:
                done.append(key)
            elif room.get(message.actor_name, 1) < 1:
                excess.append((key, message))
            else:
                room[message.actor_name] = room.get(message.actor_name, 1) - 1
                wanted[message.args[0]] = (key, message)
        self._note(len(wanted), {m.actor_name for _, m in excess}, len(messages))
        try:
            done += self._claim_messages(wanted, excess) if wanted else []
        except (StoreUnavailable, _Draining):
            excess += wanted.values()
            raise
        finally:
            self._tidy(done, excess)

    def _claim_messages(
        self,
        wanted: dict[str, tuple[bytes, MessageProxy]],
        excess: list[tuple[bytes, MessageProxy]],
    ) -> list[bytes]:
        """Claims the jobs; the keys of messages whose job somebody else has (duplicates). Those of
        jobs that are too large to be held now join the `excess`."""
        supply = self._supply
        ids = list(wanted)
        won = self._claim(
            lambda now, most: supply.store.claims.claim(
                ids, supply.worker_id, now, most_bytes=most
            ),
            wanted,
        )
        excess += [wanted.pop(job_id) for job_id in won.too_large]
        return [key for job_id, (key, _) in wanted.items() if job_id not in won.held]

    def _claim(
        self,
        claim: Callable[[datetime, float], list[Job]],
        messages: Mapping[str, tuple[bytes, MessageProxy]] | None = None,
        popped_key: bytes | None = None,
    ) -> Won:
        """The only way to a job: what `claim(now, most_bytes)` wins is held from the same moment on
        that this process may have it, or given back where it is too large to be held now.

        Raises `_Draining` where the process stops: it looks for what it holds once more after the
        last claim, and a claim that came later would be taken for a crash.
        """
        supply = self._supply
        with supply.alone:
            supply.registry.wait_until_not_alone(supply.draining)
            if supply.draining.is_set():
                raise _Draining
            began = time.monotonic()
            jobs = claim(supply.clock.now(), supply.registry.room_bytes)
            supply.registry.claim_took(time.monotonic() - began)
            crash_point("worker.after_claim")
            return self._hold(jobs, messages or {}, popped_key)

    def _hold(
        self,
        jobs: Sequence[Job],
        messages: Mapping[str, tuple[bytes, MessageProxy]],
        popped_key: bytes | None,
    ) -> Won:
        """Queues claimed jobs for the threads. Gives back the others."""
        held, others = [], []
        for job in jobs:
            event_type = self._supply.catalog.get(job.type)
            # Too large to be held now, or the message that it came by lied about its type.
            if job.size is None or event_type is None:
                others.append(job)
                continue
            key, message = messages.get(job.id) or (
                popped_key,
                MessageProxy(hint_message(job.hint)),
            )
            message.options["priority"] = job.priority
            message.options["time_limit"] = job.time_limit_ms
            if event_type.is_async:
                # Its own deadline is the event loop's business; the thread only hands it over.
                message.options["time_limit"] = 86_400_000
            held.append(Held(job, event_type, message, key, popped_key is not None))
        self._supply.registry.add(held)
        self._ready.extend(h.message for h in held)
        if others:
            unstarted = AttemptResult(Outcome.UNSTARTED, self._supply.clock.now())
            batch = [(job, transition_after(job, unstarted, 0)) for job in others]
            finish(self._supply.store, self._supply.counters, batch)
        return Won({h.job.id for h in held}, {job.id for job in jobs if job.size is None})

    def _put_aside(self, key: bytes, why: str) -> None:
        """Moves junk to Dramatiq's dead-letter set, for people to look at, and counts it."""
        _log.warning("a message is put aside: it %s", why, extra={"message_key": repr(key)})
        deltas = Deltas()
        deltas.add(WORKER_COUNTS, "junk")
        try:
            self._broker.do_nack(self._queue, key)
            self._supply.counters.add(deltas)
        except (redis.RedisError, StoreUnavailable) as error:
            _log.warning("junk stays where it is: %s", error)

    def _tidy(self, done: list[bytes], excess: list[tuple[bytes, MessageProxy]]) -> None:
        try:
            if done:
                self._broker.ack_many(self._broker.client, self._queue, done)
            for priority in SHARES:
                keys = [key for key, m in excess if m.options["priority"] == priority]
                if keys:
                    self._broker.give_back(self._queue, priority, keys)
        except redis.RedisError as error:
            _log.warning("messages stay unacked: %s", error)

    # straight from MongoDB

    def _take_overflow(self) -> None:
        full = self._full_types()
        if self._take_from_mongo(full):
            return
        self._overflow_until = 0.0
        if full:  # there may be more of those
            self._supply.registry.wait_until_worth_a_claim(full, _BESIDE_SECONDS)
            return
        self._broker.clear_overflow(self._queue)
        # A job that came after the look, and found the overflow still set, has no message.
        if self._take_from_mongo(full):
            self._broker.set_overflow(self._queue)

    def _full_types(self) -> list[EventType]:
        return [t for t in self._types if not self._supply.registry.is_worth_a_claim(t)]

    def _take_from_mongo(self, full: Collection[EventType]) -> bool:
        """Claims the oldest due jobs of all but the full types; whether there were any."""
        supply, most = self._supply, self._most()
        types = [t.name for t in self._types if t not in full]
        waiting = self._due.oldest(types, first_ones(most, self._rng), most)
        hints, left = self._that_find_room(waiting)
        self._note(len(hints), left, len(waiting))
        if hints:
            ids = [h.job_id for h in hints]
            self._claim(
                lambda now, most: supply.store.claims.claim(
                    ids, supply.worker_id, now, most_bytes=most
                )
            )
        return bool(waiting)

    def _that_find_room(self, hints: Sequence[Hint]) -> tuple[list[Hint], set[str]]:
        """Not more of one type than it may have; and the types of which there are more."""
        room = self._rooms()
        chosen, full = [], set()
        for hint in hints:
            if room[hint.type] > 0:
                room[hint.type] -= 1
                chosen.append(hint)
            else:
                full.add(hint.type)
        return chosen, full

    def _note(self, taken: int, full: Collection[str], looked_at: int) -> None:
        """Learns from a look: jobs of the `full` types found no room."""
        self._full = [t for t in self._types if t.name in full]
        if full:
            self._look = max(1, taken)
        elif looked_at >= self._look:
            self._look = min(_MOST, 2 * looked_at)

    def _take_suspects(self) -> None:
        """Claims jobs that were held by a process that died, in ever smaller company.

        Nothing else is claimed for the first moments of their run, and what runs is waited for, so
        that it is known whom to blame if this process dies too. Jobs that take longer than that are
        not waited for: if the process dies, they are suspects themselves.
        """
        supply = self._supply
        types = [t.name for t in self._types]

        def claim(now: datetime, most_bytes: float) -> list[Job]:
            waiting = supply.store.waiting.suspects([self._queue], types, now, _MOST)
            if not waiting:
                supply.suspects_wait.clear()
                return []
            company = waiting[0][1]
            ids = [job_id for job_id, least in waiting if least >= company][:company]
            supply.registry.wait_until_at_most(0, _QUIET_SECONDS, unless=supply.draining)
            if supply.draining.is_set():
                return []
            now = supply.clock.now()
            return supply.store.claims.claim_suspects(
                ids, supply.worker_id, now, most_bytes=most_bytes
            )

        self._claim(claim)

    # how many

    def _rooms(self) -> dict[str, int]:
        """How many more jobs of each type the process should hold."""
        return {t.name: self._supply.registry.room(t) for t in self._types}

    def _most(self) -> int:
        """How many jobs to look at: what finds room whatever their types; where some types are for
        threads and some are not, a few at least; more while those that come find room."""
        if not self._types:
            return _MOST
        rooms = self._rooms().values()
        few = _MIXED_LOOK if len(self._kinds) > 1 else 1
        look = max(few, min(rooms), self._look)
        return max(1, min(look, max(rooms), _MOST))

    def _wait(self, seconds: float) -> None:
        self._pause.wait(seconds)
