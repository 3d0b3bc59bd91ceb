"""How long requests take: one histogram a method, route and status, added up over all processes.

Each process adds what it saw to the counters' document `_http` every few seconds; `/metrics` shows
that document only, so that the totals of all processes grow together and never go back.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, NamedTuple

from service.errors import StoreUnavailable
from service.store import Counters, Deltas

_log = logging.getLogger(__name__)
HTTP_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Upper bounds in seconds; one more bucket takes what is above the last."""
HTTP_COUNTS = "_http"
"""The counters' document; a field a method, route and status: `b.<bucket>`, `sum`, `count`."""
_FLUSH_SECONDS = 2.0
_SETTLE_SECONDS = 0.01
"""For so long an observation may still be adding to the old sums."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Series(NamedTuple):
    """One histogram's labels."""

    method: str
    route: str
    status: int


_Key = tuple[str, str | None, int]


def _series(key: _Key) -> Series:
    """A label's values must be few, whatever clients send."""
    method, route, status = key
    return Series(method if method in _METHODS else "other", route or "unmatched", status)


class HttpTimes:
    """`observe` for the event loop; a thread takes the sums to MongoDB."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._seen: dict[_Key, list[float]] = {}
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def observe(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """`route`: the template of the path, None where none matched."""
        key = (method, route, status)
        sums = self._seen.get(key)
        if sums is None:
            sums = self._new(key)
        sums[bisect_left(HTTP_BUCKETS, seconds)] += 1
        sums[-1] += seconds

    def flush(self) -> None:
        """Adds what was seen since the last time; what can't be written is kept for the next."""
        seen, self._seen = self._seen, {}
        time.sleep(_SETTLE_SECONDS)
        deltas = Deltas()
        for key, sums in seen.items():
            _add(deltas, _series(key), sums)
        try:
            self._counters.add(deltas)
        except StoreUnavailable:
            self._put_back(seen)

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_FLUSH_SECONDS)
        self.flush()

    def _new(self, key: _Key) -> list[float]:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="http times", daemon=True)
            self._thread.start()
        return self._seen.setdefault(key, [0.0] * (len(HTTP_BUCKETS) + 2))

    def _run(self) -> None:
        while not self._stopped.wait(_FLUSH_SECONDS):
            self.flush()

    def _put_back(self, seen: dict[_Key, list[float]]) -> None:
        for key, sums in seen.items():
            kept = self._seen.setdefault(key, [0.0] * len(sums))
            for position, amount in enumerate(sums):
                kept[position] += amount


def _add(deltas: Deltas, series: Series, sums: list[float]) -> None:
    name = f"{series.method} {series.route.replace('.', '%2E')} {series.status}"
    for bucket, count in enumerate(sums[:-1]):
        if count:
            deltas.add(HTTP_COUNTS, f"{name}.b.{bucket}", count)
    deltas.add(HTTP_COUNTS, f"{name}.sum", sums[-1])
    deltas.add(HTTP_COUNTS, f"{name}.count", sum(sums[:-1]))


def series_of(document: Mapping[str, Any]) -> dict[Series, Mapping[str, Any]]:
    """The counters' document by labels."""
    found = {}
    for name, histogram in document.items():
        method, route, status = name.split(" ")
        found[Series(method, route.replace("%2E", "."), int(status))] = histogram
    return found
