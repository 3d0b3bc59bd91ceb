"""Messages for due jobs that have none."""

from __future__ import annotations

from datetime import datetime, timedelta

from service.catalog import Catalog
from service.clock import ServerClock
from service.concurrency.adaptive_interval import AdaptiveInterval, AlertInterval
from service.queue.broker import PulseBroker
from service.store import Stores
from service.worker.maintenance.adopt import adopt
from service.worker.maintenance.dispatch import dispatch

_LATE = timedelta(seconds=2)
_RECENT, _RECENT_MOST_SECONDS = timedelta(seconds=4), 1.0
"""Looks for what has become due lately come so often that nothing falls between them."""

_FORMER_SECONDS, _FORMER_CALM_SECONDS = 10.0, 5.0
"""What a former version sent is looked for at every turn for a while, and then now and then: what
is due and has no hint is found anyway."""


class Dispatcher:
    """Every method raises `StoreUnavailable` and `redis.RedisError`."""

    def __init__(
        self, stores: Stores, broker: PulseBroker, catalog: Catalog, clock: ServerClock
    ) -> None:
        self._stores, self._broker, self._catalog, self._clock = stores, broker, catalog, clock
        self._former = AlertInterval(_FORMER_SECONDS, _FORMER_CALM_SECONDS)
        self._all, self._recent = AdaptiveInterval(), AdaptiveInterval(_RECENT_MOST_SECONDS)

    def hurry(self) -> None:
        """Redis may have lost what was in it: the next look is for all that is due."""
        self._all.hurry()

    def dispatch(self) -> None:
        """The leader's part: what has just become due."""
        self._dispatch(self._clock.now())

    def dispatch_late(self) -> None:
        """Anybody's part: what nobody has sent for long. A leader of an older version doesn't know
        every type."""
        self._dispatch(self._clock.now() - _LATE)

    def _dispatch(self, now: datetime) -> None:
        """Looks for all that has been due for long where the pace allows it; in between only for
        what has become so lately."""
        self._former.run_if_due(self._adopt)
        if not self._all.run_if_due(lambda: self._send(self._all, now)):
            self._recent.run_if_due(lambda: self._send(self._recent, now, now - _RECENT))

    def _adopt(self) -> bool:
        """Whether a process of a former version left something."""
        return adopt(self._broker, self._catalog, self._stores.counters) > 0

    def _send(self, look: AdaptiveInterval, now: datetime, since: datetime | None = None) -> None:
        """Where there was something, more of it may be coming due: the next look is not put off."""
        queues = {t.name: t.queue for t in self._catalog}
        store, lanes = self._stores.jobs, self._broker.lanes
        if dispatch(store, lanes, queues, now, since=since, pause=look.pause):
            self._recent.hurry()
