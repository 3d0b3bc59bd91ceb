"""One worker process: what it is made of, and the beats of its life."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import dramatiq
import redis
from dramatiq.middleware import Retries

from service.catalog import Catalog
from service.clock import ServerClock
from service.concurrency.adaptive_interval import AdaptiveInterval, Vigil
from service.concurrency.complaints import Complaints
from service.concurrency.delay_queue import DelayQueue
from service.errors import InvalidEvent, StoreUnavailable
from service.job import FINAL, Hint, JobStatus
from service.queue import redis_client
from service.queue.broker import DEAD_LETTER_ACTOR, PulseBroker
from service.runtime import preflight
from service.runtime.identity import is_gone, this_worker
from service.settings import Settings, without_password
from service.store import LeaderLease, Membership, Stores
from service.store.mongo import connect
from service.worker.claiming.consumer import JobConsumer
from service.worker.claiming.supply import Supply
from service.worker.claiming.unheld import release_unheld
from service.worker.finishing.committer import Committer, Settled
from service.worker.fleet.lease import Lease
from service.worker.maintenance import sweep
from service.worker.maintenance.scheduler import Scheduler
from service.worker.registry import Held, Registry
from service.worker.running.runner import Runner
from service.worker.running.time_limits import HandlerTimeLimit

_log = logging.getLogger(__name__)
_LEADER_SECONDS = 5.0
_WAIT_FOR_MONGO_SECONDS = 2.0
_FORGET_WORKERS_SECONDS = 3600.0
_BLOCK_TIMEOUT_SECONDS = 8.0
_STUCK_EXIT = 70
_LATE = timedelta(seconds=2)
_RECENT, _RECENT_PACE_SECONDS = timedelta(seconds=4), 2.0
"""Looks for what has become due lately come so often that nothing falls between them."""
_SHORT_SECONDS = 0.25
"""Jobs that are held for less needn't be asked whether to stop."""
_AFTER_A_DEATH_SECONDS = 30.0
_CALM_SECONDS = 10.0


class WorkerProcess:
    """Made before the Dramatiq worker's threads start; everything in it belongs to this process."""

    def __init__(
        self, settings: Settings, catalog: Catalog, broker: PulseBroker, worker: dramatiq.Worker
    ) -> None:
        self._settings, self._catalog, self._broker, self._worker = (
            settings,
            catalog,
            broker,
            worker,
        )
        self._queues = [
            q
            for q in catalog.queues
            if not worker.consumer_whitelist or q in worker.consumer_whitelist
        ]
        self.identity = this_worker(self._queues, worker.worker_threads)
        self.clock = ServerClock()
        database = connect(settings)
        self._stores = Stores(database, settings)
        self.store = self._stores.jobs
        self._counters = self._stores.counters
        self._workers = self._stores.workers
        self._membership = Membership(self._workers, self.identity)
        self._leader = LeaderLease(database, self.identity.id, _LEADER_SECONDS)
        self._lease = Lease(settings.lease_seconds)
        self._registry = Registry(
            worker.worker_threads,
            settings.async_concurrency,
            catalog,
            max_bytes=settings.max_claimed_bytes,
        )
        self._committer = Committer(
            self.store, self._counters, broker, self._registry, self._follow_up
        )
        (time_limit,) = (m for m in broker.middleware if isinstance(m, HandlerTimeLimit))
        self.runner = Runner(
            self._registry,
            self._lease,
            self.clock,
            self._committer.put,
            self._progress,
            limits=time_limit.limits,
        )
        self._supply = Supply(
            store=self.store,
            counters=self._counters,
            registry=self._registry,
            lease=self._lease,
            clock=self.clock,
            catalog=catalog,
            worker_id=self.identity.id,
            wake_client=redis_client.connect(
                settings, timeout_seconds=_BLOCK_TIMEOUT_SECONDS, reconnects=0
            ),
        )
        self._notes: DelayQueue[tuple[Held, Any]] = DelayQueue(self._write_progress)
        self._well_since = float("inf")
        """Since when heartbeats are written without a gap (monotonic)."""
        self._rescue_pace, self._dispatch_pace = AdaptiveInterval(), AdaptiveInterval()
        self._recent_pace = AdaptiveInterval(_RECENT_PACE_SECONDS)
        self._suspects_vigil = Vigil(_AFTER_A_DEATH_SECONDS, _CALM_SECONDS)
        self._alive: set[str] = set()
        """The workers that were alive at the last look."""
        self._mongo_complaints, self._redis_complaints = Complaints(), Complaints()
        self.scheduler = Scheduler(
            ticks=self._stores.ticks,
            jobs=self.store,
            workers=self._workers,
            counters=self._counters,
            clock=self.clock,
            catalog=catalog,
            worker_id=self.identity.id,
            leads=lambda: self._leads,
            send=self._send_if_possible,
        )
        self._stop_asked = threading.Event()
        self._parent = os.getppid()

    # start

    def start(self) -> None:
        """Waits for MongoDB, says who this worker is, and starts what runs beside the threads.

        Raises `SystemExit` where it is told to stop meanwhile.
        """
        while not self._reach_mongo():
            if self._stop_asked.wait(_WAIT_FOR_MONGO_SECONDS):
                raise SystemExit(0)
        preflight.warn_soon(self._stores.audit, self._broker.client, self.clock)
        self._committer.start()
        self.runner.loop.start()

    def _reach_mongo(self) -> bool:
        try:
            self._stores.prepare()
            self.beat()
        except StoreUnavailable as error:
            uri = without_password(self._settings.mongodb_uri)
            level = logging.WARNING if self._mongo_complaints.is_news(error) else logging.DEBUG
            _log.log(level, "waiting for MongoDB at %s: %s", uri, error)
            return False
        return True

    def consumer(self, broker: PulseBroker, queue: str, *_: Any) -> JobConsumer:
        return JobConsumer(broker, queue, self._supply)

    # beats

    def beat(self) -> None:
        """Renews the lease on all that this process holds, and learns the server's time."""
        lapsed = self._lease.renewed > float("-inf") and not self._lease.is_valid
        sent = time.monotonic()
        self._stores.read_clock(self.clock)
        if not self._membership.beat(len(self._registry)):
            return
        if lapsed:
            _log.warning("the lease lapsed: what hasn't started is given back")
            self.runner.give_back_waiting()
        if sent - self._lease.renewed > 2 * self._settings.heartbeat_seconds + 0.5:
            self._well_since = sent
        self._lease.renew(sent)
        self._leader.renew()

    def look(self) -> None:
        """Notices what changed around this process: cancellations, stuck threads, and that
        Dramatiq's outermost process is gone, which nobody would restart while this one lives."""
        if os.getppid() != self._parent:
            self._give_up("its parent process is gone")
        self._look_for_the_stuck()
        workers = self._workers.seen_from(self.identity.process_space)
        alive = sorted(w["_id"] for w in workers if w["age_seconds"] < self._settings.lease_seconds)
        if not self._alive <= set(alive):
            self._rescue_pace.hurry()
            self._suspects_vigil.call()
        self._alive = set(alive)
        if self.identity.id in alive:
            self._supply.position = (alive.index(self.identity.id), len(alive))
        self._bury_neighbours(workers)
        self._look_for_suspects()
        if time.monotonic() < self._supply.doubtful_until:
            self._release_unheld()
        if held_for_long := self._registry.held_longer_than(_SHORT_SECONDS):
            ids = [held.job.id for held in held_for_long]
            asked = set(self.store.held.cancel_requests(self.identity.id, ids))
            for held in held_for_long:
                held.cancelled = held.cancelled or held.job.id in asked

    def _look_for_suspects(self) -> None:
        """Suspects come from deaths."""
        if not self._suspects_vigil.is_due:
            return
        types = [t.name for t in self._catalog]
        if self.store.waiting.suspects(self._queues, types, self.clock.now(), 1):
            self._supply.suspects_wait.set()
            self._suspects_vigil.call()
        else:
            self._suspects_vigil.looked()

    def _release_unheld(self) -> None:
        hints = release_unheld(self._supply)
        if hints and not self._supply.redis_away.is_set():
            self._broker.enqueue_many(hints)

    def sweep(self) -> None:
        """One tick of the sweep, where this process leads it."""
        if not self._leads:
            return
        if self._rescue_pace.is_due:
            with self._rescue_pace.look():
                rescued = self._rescue(self.clock.now())
            if rescued and not self._supply.redis_away.is_set():
                self._broker.enqueue_many(rescued)
        self._leader.ticked()

    def _send_if_possible(self, hints: Sequence[Hint]) -> None:
        """Whatever fails here, workers find the jobs by themselves."""
        if not self._supply.redis_away.is_set():
            with contextlib.suppress(redis.RedisError):
                self._broker.enqueue_many(hints)

    def send_dead_letters(self) -> None:
        """The sweep's slowest part: dead letters that never arrived."""
        if self._leads and not self._supply.redis_away.is_set():
            sweep.send_dead_letters(self.store, self._broker, DEAD_LETTER_ACTOR, self.clock.now())

    def _rescue(self, now: datetime) -> list[Hint]:
        # After an outage of MongoDB every heartbeat is old; the living get time for a new one.
        patience = min(self._settings.lease_seconds, 2 * self._settings.heartbeat_seconds + 1)
        return sweep.rescue(
            self.store,
            self._workers,
            self._counters,
            now,
            believe_heartbeats=time.monotonic() - self._well_since > patience,
        )

    def dispatch(self) -> None:
        """The sweep's quickest part: messages for due jobs that have none."""
        if self._leads:
            self._dispatch(self.clock.now())

    def dispatch_late(self) -> None:
        """The same, by any worker, for what nobody has sent for long: a leader of an older version
        doesn't know every type."""
        if not self._leads and not self._supply.draining.is_set():
            self._dispatch(self.clock.now() - _LATE)

    def _dispatch(self, now: datetime) -> None:
        """Looks for all that has been due for long where the pace allows it; in between only for
        what has become so lately."""
        if self._supply.redis_away.is_set():
            return
        if self._dispatch_pace.is_due:
            with self._dispatch_pace.look():
                self._send_hints(now)
        elif self._recent_pace.is_due:
            with self._recent_pace.look():
                self._send_hints(now, now - _RECENT)

    def _send_hints(self, now: datetime, since: datetime | None = None) -> None:
        queues = self._catalog.queues
        for queue in queues if sweep.is_needed(self.store, queues, now, since) else []:
            types = [t.name for t in self._catalog if t.queue == queue]
            sweep.dispatch(self.store, self._broker, queue, types, now, since=since)

    @property
    def _leads(self) -> bool:
        return self._leader.is_held and not self._supply.draining.is_set()

    def tidy(self) -> None:
        """What needs doing now and then."""
        self._release_unheld()
        if self._leader.is_held and not self._supply.redis_away.is_set():
            sweep.clear_leftovers(self._broker, self.clock.now_ms())
            for queue in self._catalog.queues:
                sweep.clear_orphans(self.store, self._broker, queue)
            self._workers.forget_older_than(_FORGET_WORKERS_SECONDS)

    def look_at_redis(self) -> None:
        """Whether Redis can be used: where it can't, jobs come straight from MongoDB."""
        supply = self._supply
        try:
            self._broker.probe()
        except redis.RedisError as error:
            if self._redis_complaints.is_news(error):
                _log.warning("Redis is away, jobs come straight from MongoDB: %s", error)
            supply.redis_away.set()
            self._wake_consumers()
        else:
            if supply.redis_away.is_set():
                _log.info("Redis is back")
                self._dispatch_pace.hurry()
            supply.redis_away.clear()
            self._redis_complaints.settle()

    def _wake_consumers(self) -> None:
        """Breaks off the blocking calls to Redis."""
        with contextlib.suppress(redis.RedisError, OSError):
            self._supply.wake_client.connection_pool.disconnect(inuse_connections=True)

    def _look_for_the_stuck(self) -> None:
        """A run that its time limit can't interrupt ends as a timeout; as its thread is lost, the
        process ends too, and its supervisor starts a fresh one."""
        self.runner.interrupt_blocked_loop()
        now, grace = time.monotonic(), self._settings.stuck_grace_seconds
        stuck = [h for h in self._registry.running() if h.deadline + grace < now]
        if stuck:
            blamed = self.runner.to_blame(stuck)
            for held in blamed:
                self.runner.end_stuck(held)
            names = ", ".join(sorted({h.type.name for h in blamed}))
            self._give_up(f"{len(stuck)} run(s) are stuck beyond their time limit, by {names}")
        worker = self._worker
        needed = (self._committer, self.runner.loop, *worker.consumers.values(), *worker.workers)
        for thread in needed:
            if not thread.is_alive() and not self._supply.draining.is_set():
                self._give_up(f"a thread that it needs is dead: {thread!r}")

    def _give_up(self, why: str) -> None:
        _log.critical("this process gives its jobs back and exits: %s", why)
        try:
            self.drain()
            self.finish()
            logging.shutdown()
        finally:  # a next look wouldn't find again what this one has ended
            os._exit(_STUCK_EXIT)

    def _bury_neighbours(self, workers: Sequence[dict[str, Any]]) -> None:
        """Removes the documents of processes that this one can see are gone: no need to wait for
        the end of their lease."""
        for worker in workers:
            if (
                worker["_id"] != self.identity.id
                and worker.get("process_space") == self.identity.process_space
                and is_gone(worker["pid"], worker["pid_started"])
            ):
                _log.warning("a worker process is gone", extra={"worker": worker["_id"]})
                self._workers.remove(worker["_id"])
                self._leader.bury(worker["_id"])
                self._leader.renew()

    # what follows

    def _follow_up(self, written: Sequence[Settled]) -> None:
        """Lets Dramatiq's `Retries` do its part, now that MongoDB has the outcome: redeliver after
        the backoff, or call the dead-letter actor."""
        for settled in written:
            verdict = settled.verdict
            if verdict.error is None or not verdict.charged:
                continue
            if verdict.status is JobStatus.PENDING and verdict.next_attempt_at is not None:
                wait = verdict.next_attempt_at - self.clock.now()
                delay_ms = max(1, int(wait.total_seconds() * 1000))
                self._retries(settled, dramatiq.Retry(delay=delay_ms))
            elif verdict.status in FINAL:
                self._retries(settled, RuntimeError(verdict.error["message"]))

    def _retries(self, settled: Settled, exception: Exception) -> None:
        for middleware in self._broker.middleware:
            if isinstance(middleware, Retries):
                middleware.after_process_message(  # type: ignore[no-untyped-call]
                    self._broker, settled.held.message, exception=exception
                )

    def _progress(self, held: Held, value: Any) -> None:
        """Returns at once: the handler may be on the event loop."""
        self._notes.add((held, value), 0.0)

    def _write_progress(self, notes: Sequence[tuple[Held, Any]]) -> None:
        latest = {held.job.id: (held, value) for held, value in notes}
        for held, value in latest.values():
            try:
                self.store.held.progress(held.job, value)
            except (StoreUnavailable, InvalidEvent) as error:
                _log.warning("a job's progress is not shown: %s", error)

    # stop

    def ask_to_stop(self) -> bool:
        """From the signal's handler: starts giving back at once, without waiting for Dramatiq.
        False where that was asked before."""
        if self._stop_asked.is_set():
            return False
        self._stop_asked.set()
        threading.Thread(target=self.drain, name="drain", daemon=True).start()
        return True

    def drain(self) -> None:
        """Stops claiming, and gives back what hasn't started."""
        if self._supply.draining.is_set():
            return
        self._supply.draining.set()
        self.runner.stopping.set()
        self._wake_consumers()
        self.runner.give_back_waiting()
        with contextlib.suppress(StoreUnavailable):
            self._leader.resign()

    def finish(self) -> bool:
        """Lets what runs finish within the grace, gives back the rest, and says goodbye; whether
        every thread came home."""
        self.drain()
        self._wait_for_last_claim()
        grace = self._settings.shutdown_grace_seconds
        at_home = self._registry.wait_until_at_most(0, grace)
        if not at_home:
            self.runner.give_back_waiting()
            count = self.runner.give_back_running()
            _log.warning("gave back %d jobs that were still running", count)
        self._registry.wait_until_at_most(0, 2.0)
        self._committer.flush(2.0)
        self._committer.stop()
        self.runner.loop.stop()
        with contextlib.suppress(StoreUnavailable):
            self._membership.leave()
        return at_home

    def _wait_for_last_claim(self) -> None:
        """A claim that was under way when this process was told to stop: what it won is given back
        like all else, and so is what it may have won where its reply was lost."""
        supply = self._supply
        patience = self._settings.mongodb_timeout_ms / 1000
        if supply.alone.acquire(timeout=patience):
            supply.alone.release()
        self.runner.give_back_waiting()
        if time.monotonic() < supply.doubtful_until:
            with contextlib.suppress(StoreUnavailable, redis.RedisError):
                self._release_unheld()
