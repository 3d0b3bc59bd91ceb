"""What `/metrics` knows while some of it can't be read."""

from __future__ import annotations

import asyncio
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from service.api import prometheus
from service.clock import ServerClock
from service.errors import StoreLate, StoreUnavailable
from service.metrics.totals import Snapshot, Totals


def fails(*_: Any) -> Any:
    raise StoreLate("too many to count")


def make_totals(**listing: Any) -> Totals:
    working: dict[str, Any] = {
        "depth": lambda _queue, _now: 3,
        "scheduled": lambda _queue, _now: 2,
        "oldest_due": lambda _queue, now: now,
        "processing": lambda: 1,
        "pending_types": lambda besides: {},
    }
    stores: Any = SimpleNamespace(
        listing=SimpleNamespace(**working | listing),
        counters=SimpleNamespace(read=dict),
        workers=SimpleNamespace(alive=list),
        sweep=SimpleNamespace(age_seconds=lambda: 0.5),
    )
    return Totals(
        stores, lambda: {"default": ["email"], "mail": ["sms"]}, ServerClock(), lambda: None
    )


def snapshot(**listing: Any) -> Snapshot:
    return asyncio.run(make_totals(**listing).snapshot())


KNOWN = {"depth", "scheduled", "oldest_seconds", "processing", "sweep_age_seconds"}


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("depth", "depth"),
        ("scheduled", "scheduled"),
        ("oldest_due", "oldest_seconds"),
        ("processing", "processing"),
    ],
)
def test_what_cannot_be_counted_takes_nothing_else_away(name: str, lost: str) -> None:
    shown = snapshot(**{name: fails})
    gauges = shown.gauges
    assert {field for field in KNOWN if getattr(gauges, field) is not None} == KNOWN - {lost}
    text = prometheus.text(shown, "text/plain")[0].decode()
    assert "pulsequeue_sweep_age_seconds 0.5" in text
    assert ('pulsequeue_queue_depth{queue="default"} 3.0' in text) == (lost != "depth")
    assert prometheus.as_json(shown)["sweep_age_seconds"] == 0.5


def test_a_queue_that_cannot_be_counted_takes_no_other_away() -> None:
    def depth(types: list[str], _now: datetime) -> int:
        if types == ["sms"]:
            raise StoreLate("too many to count")
        return 3

    assert snapshot(depth=depth).gauges.depth == {"default": 3}


def test_types_that_are_not_known_here_count_in_their_queue() -> None:
    asked: list[list[str]] = []

    def pending_types(besides: list[str]) -> dict[str, str]:
        assert sorted(besides) == ["email", "sms"]
        return {"former": "mail", "new": "other"}

    def depth(types: list[str], _now: datetime) -> int:
        asked.append(types)
        return len(types)

    gauges = snapshot(depth=depth, pending_types=pending_types).gauges
    assert gauges.depth == {"default": 1, "mail": 2, "other": 1}
    assert asked == [["email"], ["sms", "former"], ["new"]]


def test_without_mongodb_no_gauge_is_known() -> None:
    def gone(*_: Any) -> Any:
        raise StoreUnavailable("gone")

    names = ("depth", "scheduled", "oldest_due", "processing")
    gauges = snapshot(**dict.fromkeys(names, gone)).gauges
    assert (gauges.depth, gauges.scheduled, gauges.oldest_seconds) == (None, None, None)
    assert gauges.processing is None
