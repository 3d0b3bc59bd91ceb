"""The sign of life of this process, and what depends on its arriving in time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from service.clock import ServerClock
from service.store import LeaderLease, Membership, Stores
from service.worker.fleet.lease import Lease
from service.worker.holding.in_flight import InFlight

_log = logging.getLogger(__name__)
_LATE_SECONDS = 0.5
"""A heartbeat that comes so much later than the second one after the last counts as a gap."""


class Heartbeat:
    """`on_lapse()` gives back what hasn't started: called when this process was cut off or frozen
    for so long that others may have its jobs."""

    def __init__(
        self,
        *,
        stores: Stores,
        clock: ServerClock,
        membership: Membership,
        lease: Lease,
        leader: LeaderLease,
        in_flight: InFlight,
        every_seconds: float,
        on_lapse: Callable[[], None],
    ) -> None:
        self._stores, self._clock, self._membership = stores, clock, membership
        self._lease, self._leader, self._in_flight = lease, leader, in_flight
        self._gap_seconds = 2 * every_seconds + _LATE_SECONDS
        self._on_lapse = on_lapse
        self._well_since = float("inf")
        """Since when heartbeats are written without a gap (monotonic)."""

    def beat(self) -> None:
        """Renews the lease on all that this process holds, and learns the server's time. Raises
        `StoreUnavailable`."""
        lapsed = self._lease.renewed > float("-inf") and not self._lease.is_valid
        sent = time.monotonic()
        self._stores.read_clock(self._clock)
        if not self._membership.beat(len(self._in_flight)):
            return
        if lapsed:
            _log.warning("the lease lapsed: what hasn't started is given back")
            self._on_lapse()
        if sent - self._lease.renewed > self._gap_seconds:
            self._well_since = sent
        self._lease.renew(sent)
        self._leader.renew()

    def was_steady_for(self, seconds: float) -> bool:
        """Whether no heartbeat was missed for so long."""
        return time.monotonic() - self._well_since > seconds
