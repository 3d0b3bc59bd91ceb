"""A snapshot as Prometheus text, and as JSON.

Names and units follow Prometheus' guidelines: base units, `_total` for what only grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from service.metrics.counts import RUN_BUCKETS, WAIT_BUCKETS, WORKER_COUNTS
from service.metrics.http_times import HTTP_BUCKETS, HTTP_COUNTS, series_of
from service.metrics.totals import Gauges, Snapshot
from service.store.mongo import Document

_PREFIX = "pulsequeue"
_REASONS = ("crash", "error", "rejected", "timeout")
_OF_WORKERS = ("fenced", "junk", "rescued")


class SnapshotCollector(Collector):
    """The families of one snapshot; what isn't known is left out."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield _up(self._snapshot.up)
        if self._snapshot.counters is not None:
            yield from _totals(self._snapshot.counters)
        yield from _gauges(self._snapshot.gauges)
        if self._snapshot.workers_alive is not None:
            name = f"{_PREFIX}_workers_alive"
            yield GaugeMetricFamily(
                name, "Worker processes with a fresh heartbeat.", self._snapshot.workers_alive
            )


def text(snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
    """The exposition in the format that the client likes best, and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(SnapshotCollector(snapshot)), content_type


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """The same in short; null: not known at the moment."""
    gauges = snapshot.gauges
    return {
        **_sums(snapshot.counters),
        "queue_depth": gauges.depth,
        "processing": gauges.processing,
        "scheduled": None if gauges.scheduled is None else sum(gauges.scheduled.values()),
        "oldest_pending_seconds": (
            None
            if gauges.oldest_seconds is None
            else max(gauges.oldest_seconds.values(), default=0.0)
        ),
        "workers_alive": snapshot.workers_alive,
        "sweep_age_seconds": gauges.sweep_age_seconds,
        "schedules_late_seconds": gauges.schedules_late_seconds,
        "up": snapshot.up,
    }


def _sums(counters: Mapping[str, Document] | None) -> dict[str, int | None]:
    names = ("received", "completed", "failed", "retried", "cancelled")
    if counters is None:
        return dict.fromkeys(names)
    types = [document for name, document in counters.items() if not name.startswith("_")]
    return {name: sum(_count(document.get(name, 0)) for document in types) for name in names}


def _count(value: Any) -> int:
    """A count, or the sum of counts by reason."""
    return sum(map(int, value.values())) if isinstance(value, Mapping) else int(value)


def _up(up: Mapping[str, bool]) -> Metric:
    family = GaugeMetricFamily(
        f"{_PREFIX}_up", "Whether a dependency answers.", labels=["dependency"]
    )
    for dependency, answers in up.items():
        family.add_metric([dependency], float(answers))
    return family


def _totals(counters: Mapping[str, Document]) -> Iterator[Metric]:
    types = {name: document for name, document in counters.items() if not name.startswith("_")}
    yield _by_type(types, "received", "jobs_received", "Events accepted.")
    yield _by_type(types, "completed", "jobs_completed", "Jobs completed.")
    yield _failed(types)
    yield _by_type(types, "retried", "job_retries", "Attempts after a job's first.")
    yield _by_type(types, "cancelled", "jobs_cancelled", "Jobs cancelled.")
    yield _job_times(types, "wait", WAIT_BUCKETS, "Time from due to started.")
    yield _job_times(types, "run", RUN_BUCKETS, "Time from started to finished.")
    yield _http(counters.get(HTTP_COUNTS, {}))
    # A counter that is there from the start lets Prometheus see its first increase.
    of_workers = dict.fromkeys(_OF_WORKERS, 0) | dict(counters.get(WORKER_COUNTS, {}))
    for name, value in sorted(of_workers.items()):
        if not isinstance(value, Mapping):
            help_text = f"What workers counted as {name.replace('_', ' ')}."
            yield CounterMetricFamily(f"{_PREFIX}_worker_{name}", help_text, value)


def _by_type(types: Mapping[str, Document], field: str, name: str, help_text: str) -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}_{name}", help_text, labels=["type"])
    for event_type, document in sorted(types.items()):
        family.add_metric([event_type], document.get(field, 0))
    return family


def _failed(types: Mapping[str, Document]) -> Metric:
    family = CounterMetricFamily(
        f"{_PREFIX}_jobs_failed", "Jobs failed for good.", labels=["type", "reason"]
    )
    for event_type, document in sorted(types.items()):
        by_reason = dict.fromkeys(_REASONS, 0) | dict(document.get("failed", {}))
        for reason, count in sorted(by_reason.items()):
            family.add_metric([event_type, reason], count)
    return family


def _job_times(
    types: Mapping[str, Document], field: str, bounds: Sequence[float], help_text: str
) -> Metric:
    family = HistogramMetricFamily(f"{_PREFIX}_job_{field}_seconds", help_text, labels=["type"])
    for event_type, document in sorted(types.items()):
        if field in document:
            _add_histogram(family, [event_type], bounds, document[field])
    return family


def _http(document: Document) -> Metric:
    family = HistogramMetricFamily(
        f"{_PREFIX}_http_request_seconds",
        "Time from a request's headers to its answer.",
        labels=["method", "route", "status"],
    )
    for series, histogram in sorted(series_of(document).items()):
        labels = [series.method, series.route, str(series.status)]
        _add_histogram(family, labels, HTTP_BUCKETS, histogram)
    return family


def _add_histogram(
    family: HistogramMetricFamily,
    labels: list[str],
    bounds: Sequence[float],
    histogram: Mapping[str, Any],
) -> None:
    counts = [histogram.get("b", {}).get(str(bucket), 0) for bucket in range(len(bounds) + 1)]
    names = [*map(str, bounds), "+Inf"]
    buckets: Iterable[tuple[str, float]] = zip(names, accumulate(counts), strict=True)
    family.add_metric(labels, list(buckets), histogram.get("sum", 0.0))


def _gauges(gauges: Gauges) -> Iterator[Metric]:
    by_queue: list[tuple[str, str, Mapping[str, float] | None]] = [
        ("queue_depth", "Jobs that are due and wait.", gauges.depth),
        ("jobs_scheduled", "Jobs that wait for their time.", gauges.scheduled),
        ("oldest_pending_seconds", "How long the oldest due job waits.", gauges.oldest_seconds),
    ]
    for name, help_text, values in by_queue:
        if values is not None:
            family = GaugeMetricFamily(f"{_PREFIX}_{name}", help_text, labels=["queue"])
            for queue, value in sorted(values.items()):
                family.add_metric([queue], value)
            yield family
    if gauges.processing is not None:
        yield GaugeMetricFamily(
            f"{_PREFIX}_jobs_processing", "Jobs held by workers.", gauges.processing
        )
    if gauges.sweep_age_seconds is not None:
        name = f"{_PREFIX}_sweep_age_seconds"
        yield GaugeMetricFamily(
            name, "How long ago the sweep's last tick ended.", gauges.sweep_age_seconds
        )
    if gauges.schedules_late_seconds is not None:
        name, late = f"{_PREFIX}_schedules_late_seconds", gauges.schedules_late_seconds
        yield GaugeMetricFamily(name, "For how long the latest schedule has been due.", late)
    if gauges.schedule_last_run is not None:
        name = f"{_PREFIX}_schedule_last_run_timestamp_seconds"
        family = GaugeMetricFamily(name, "When a schedule has run last.", labels=["schedule"])
        for schedule, at in sorted(gauges.schedule_last_run.items()):
            family.add_metric([schedule], at)
        yield family
