"""One worker process: what it is made of, how it starts, and the table of its beats."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import dramatiq

from service.catalog import Catalog
from service.clock import ServerClock
from service.concurrency.complaints import Complaints
from service.errors import StoreUnavailable
from service.queue import redis_client
from service.queue.broker import PulseBroker
from service.runtime import preflight
from service.runtime.identity import this_worker
from service.settings import Settings, without_password
from service.store import LeaderLease, Membership, Stores
from service.store.mongo import connect
from service.worker.claiming.consumers import Consumers, wait_for_consumers
from service.worker.claiming.redis_monitor import RedisMonitor
from service.worker.claiming.supply import Supply
from service.worker.claiming.supply_threads import SupplyThreads
from service.worker.claiming.suspects_watch import SuspectsWatch
from service.worker.finishing.committer import Committer
from service.worker.finishing.retries import RetriesBridge
from service.worker.fleet.heartbeat import Heartbeat
from service.worker.fleet.lease import Lease
from service.worker.fleet.neighbours import Neighbours
from service.worker.fleet.role import Role
from service.worker.fleet.scheduler import Beat, schedule
from service.worker.holding.capacity import Capacity
from service.worker.holding.in_flight import InFlight
from service.worker.holding.isolation import Isolation
from service.worker.maintenance.dead_letters import DeadLetterSender
from service.worker.maintenance.dispatcher import Dispatcher
from service.worker.maintenance.hint_sender import HintSender
from service.worker.maintenance.janitor import Janitor
from service.worker.maintenance.lost_claims import LostClaims
from service.worker.maintenance.rescuer import Rescuer
from service.worker.maintenance.scheduler import BEAT_SECONDS, Scheduler
from service.worker.running.cancellations import Cancellations
from service.worker.running.progress_writer import ProgressWriter
from service.worker.running.runner import Runner
from service.worker.running.threads import WorkerThreads
from service.worker.running.time_limits import HandlerTimeLimit
from service.worker.shutdown import Shutdown
from service.worker.watchdog import Watchdog

_log = logging.getLogger(__name__)
_LEADER_SECONDS = 5.0
_WAIT_FOR_MONGO_SECONDS = 2.0


class WorkerProcess:
    """Made before the Dramatiq worker's threads start; everything in it belongs to this process."""

    def __init__(
        self, settings: Settings, catalog: Catalog, broker: PulseBroker, worker: dramatiq.Worker
    ) -> None:
        self._settings, self._catalog, self._broker = settings, catalog, broker
        self._worker = worker
        only = worker.consumer_whitelist
        self._queues = [q for q in catalog.queues if not only or q in only]
        self.identity = this_worker(self._queues, worker.worker_threads)
        self.clock = ServerClock()
        database = connect(settings)
        self._stores = Stores(database, settings)
        self.store = self._stores.jobs
        self._membership = Membership(self._stores.workers, self.identity)
        self._leader = LeaderLease(database, self.identity.id, _LEADER_SECONDS)
        self._lease = Lease(settings.lease_seconds)
        self._mongo_complaints = Complaints()
        self._scheduler: Any = None
        self._make_what_works()
        self._make_supply()
        self._make_what_keeps_it_going()
        self._make_what_repairs()
        self._make_what_looks_around()
        self._consumers = Consumers(settings, catalog, self._stores.counters, self._supply.draining)
        self.consumer = self._consumers.make

    def _make_what_works(self) -> None:
        """Jobs in, outcomes out."""
        settings, stores = self._settings, self._stores
        capacity = Capacity(
            self._worker.worker_threads,
            settings.async_concurrency,
            settings.max_claimed_bytes,
            [t for t in self._catalog if t.queue in self._queues],
        )
        self._in_flight = InFlight(capacity, Isolation())
        self._retries = RetriesBridge(self._broker, self.clock)
        self._committer = Committer(
            self.store, stores.counters, self._broker, self._in_flight, self._retries.follow_up
        )
        (time_limit,) = (m for m in self._broker.middleware if isinstance(m, HandlerTimeLimit))
        self._progress = ProgressWriter(self.store.held)
        self.runner = Runner(
            self._in_flight,
            self._lease,
            self.clock,
            self._committer.put,
            self._progress.put,
            limits=time_limit.limits,
            threads=WorkerThreads(self._broker, self._worker.work_queue),
        )

    def _make_supply(self) -> None:
        """Where jobs come from."""
        self._supply = Supply(
            store=self.store,
            counters=self._stores.counters,
            in_flight=self._in_flight,
            lease=self._lease,
            clock=self.clock,
            catalog=self._catalog,
            worker_id=self.identity.id,
            queues=self._queues,
        )
        self._supply_threads = SupplyThreads(
            self._supply,
            self._broker.lanes,
            redis_client.connect_to_block(self._settings),
            hand_over=self.runner.hand_over,
            look_for_lost_calls=self.runner.look_for_lost_calls,
        )

    def _make_what_keeps_it_going(self) -> None:
        """The sign of life, and the end."""
        settings, supply = self._settings, self._supply
        self._role = Role(self._leader, supply.draining, supply.redis_away)
        self._hints = HintSender(self._broker, self._role)
        self._lost_claims = LostClaims(supply, self._hints)
        self._shutdown = Shutdown(
            supply=supply,
            runner=self.runner,
            committer=self._committer,
            lost_claims=self._lost_claims,
            leader=self._leader,
            membership=self._membership,
            grace_seconds=settings.shutdown_grace_seconds,
            last_claim_seconds=settings.mongodb_timeout_ms / 1000,
            wake=self._interrupt,
        )
        self._heartbeat = Heartbeat(
            stores=self._stores,
            clock=self.clock,
            membership=self._membership,
            lease=self._lease,
            leader=self._leader,
            in_flight=self._in_flight,
            every_seconds=settings.heartbeat_seconds,
            on_lapse=self.runner.give_back_waiting,
        )

    def _make_what_repairs(self) -> None:
        """What the leader does for all, and what puts right what was lost."""
        settings, stores = self._settings, self._stores
        self._dispatcher = Dispatcher(stores, self._broker, self._catalog, self.clock)
        self._dead_letters = DeadLetterSender(self.store, self._broker, self.clock)
        self._janitor = Janitor(stores, self._broker, self._catalog, self.clock)
        self._rescuer = Rescuer(
            stores,
            self.clock,
            self._heartbeat,
            self._leader,
            self._hints,
            patience_seconds=min(settings.lease_seconds, 2 * settings.heartbeat_seconds + 1),
        )
        self._schedules = Scheduler(
            ticks=stores.ticks,
            jobs=self.store,
            workers=stores.workers,
            counters=stores.counters,
            clock=self.clock,
            catalog=self._catalog,
            worker_id=self.identity.id,
            leads=self._role.leads,
            send=self._hints.send,
        )

    def _make_what_looks_around(self) -> None:
        """Neighbours, Redis, clients' wishes, and this process itself."""
        settings, supply = self._settings, self._supply
        served = [t.name for t in self._catalog if t.queue in self._queues]
        self._suspects = SuspectsWatch(self.store.waiting, served, self.clock, supply.suspects_wait)
        self._neighbours = Neighbours(
            self._stores.workers,
            self.identity,
            self._leader,
            supply,
            lease_seconds=settings.lease_seconds,
            on_death=(self._rescuer.hurry, self._suspects.somebody_died),
        )
        self._redis_monitor = RedisMonitor(
            self._broker,
            supply.redis_away,
            wake=self._interrupt,
            on_return=self._dispatcher.hurry,
        )
        self._cancellations = Cancellations(self.store.held, self._in_flight, self.identity.id)
        self._watchdog = Watchdog(
            self._in_flight,
            self.runner.stuck_runs,
            self._needed_threads,
            self._shutdown,
            supply.draining,
            grace_seconds=settings.stuck_grace_seconds,
        )

    def _needed_threads(self) -> Iterator[threading.Thread]:
        yield self._committer
        yield self.runner.loop
        yield from (thread for thread in self._supply_threads if thread.ident is not None)
        yield from self._worker.consumers.values()
        yield from self._worker.workers

    def beats(self) -> list[Beat]:
        """All that this process does every so many seconds."""
        role, tick = self._role, self._settings.sweep_seconds
        return [
            Beat("heartbeat", self._settings.heartbeat_seconds, self._heartbeat.beat),
            Beat("redis", 2.0, self._redis_monitor.look),
            Beat("watchdog", 1.0, self._watchdog.look),
            Beat("neighbours", 1.0, self._neighbours.look),
            Beat("suspects", 1.0, self._suspects.look, self._suspects.is_due),
            Beat("cancellations", 1.0, self._cancellations.look, self._cancellations.are_possible),
            Beat("rescue", 2 * tick, self._rescuer.tick, role.leads),
            Beat("dispatch", tick, self._dispatcher.dispatch, role.leads_with_redis),
            Beat("schedules", BEAT_SECONDS, self._schedules.beat),
            Beat("late", 2.0, self._dispatcher.dispatch_late, role.follows_with_redis),
            Beat("letters", 5.0, self._dead_letters.send, role.leads_with_redis),
            Beat("doubt", 1.0, self._lost_claims.release, self._lost_claims.are_likely),
            Beat("lost claims", 30.0, self._lost_claims.release),
            Beat("tidy", 30.0, self._janitor.tidy, role.leads_with_redis),
        ]

    # start and stop

    def start(self) -> None:
        """Waits for MongoDB, says who this worker is, and starts what runs beside the threads.

        Raises `SystemExit` where it is told to stop meanwhile.
        """
        while not self._reach_mongo():
            if self._shutdown.is_asked.wait(_WAIT_FOR_MONGO_SECONDS):
                raise SystemExit(0)
        preflight.warn_soon(self._stores.audit, self._broker.client, self.clock)
        self._committer.start()
        self.runner.loop.start()

    def _reach_mongo(self) -> bool:
        try:
            self._stores.prepare()
            self._heartbeat.beat()
        except StoreUnavailable as error:
            uri = without_password(self._settings.mongodb_uri)
            level = logging.WARNING if self._mongo_complaints.is_news(error) else logging.DEBUG
            _log.log(level, "waiting for MongoDB at %s: %s", uri, error)
            return False
        return True

    def _interrupt(self) -> None:
        """Ends all waiting in Redis."""
        self._supply_threads.interrupt()
        self._consumers.interrupt()

    def start_beats(self) -> None:
        """Once Dramatiq's threads run: the watchdog counts on them, and so do the jobs."""
        wait_for_consumers(self._worker)
        self._supply_threads.start()
        self._scheduler = schedule(self.beats())

    def ask_to_stop(self) -> bool:
        """From a signal's handler; False where that was asked before."""
        return self._shutdown.ask()

    def finish(self) -> bool:
        """Ends all that this process does; whether every thread came home."""
        at_home = self._shutdown.finish()
        self._supply_threads.stop()
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
        return at_home
