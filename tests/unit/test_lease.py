"""Whether a process may still count on its jobs."""

from __future__ import annotations

import time

from service.worker.fleet.lease import Lease


def test_before_the_first_heartbeat_it_is_not_valid() -> None:
    lease = Lease(8)
    assert not lease.is_valid


def test_a_heartbeat_makes_it_valid() -> None:
    lease = Lease(8)
    lease.renew(time.monotonic())
    assert lease.is_valid


def test_it_counts_from_the_sending_of_the_heartbeat() -> None:
    lease = Lease(8)
    lease.renew(time.monotonic() - 7)
    assert lease.is_valid
    lease.renew(time.monotonic() - 8)
    assert not lease.is_valid


def test_it_remembers_when_it_was_last_renewed() -> None:
    lease = Lease(8)
    assert lease.renewed == float("-inf")
    lease.renew(5.0)
    assert lease.renewed == 5.0
