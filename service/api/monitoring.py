"""What operators, platforms and Prometheus ask."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import falcon
from falcon.asgi import Request, Response

from service.api import requests, responses
from service.metrics.totals import Totals
from service.web.health import Health

_TEXT_TYPES = ("text/plain", "application/openmetrics-text")


class HealthResource:
    """`/health` tells all, `/health/ready` whether events are accepted, `/health/live` that the
    process runs: it touches nothing outside of it, so that no restart follows from an outage."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def on_get(self, req: Request, resp: Response) -> None:
        requests.check_accept(req)
        _write_health(resp, await self._health.check())

    async def on_get_ready(self, req: Request, resp: Response) -> None:
        requests.check_accept(req)
        _write_health(resp, {"status": (await self._health.check())["status"]})

    async def on_get_live(self, req: Request, resp: Response) -> None:
        requests.check_accept(req)
        _write_health(resp, {"status": "ok"})

    on_head, on_head_ready, on_head_live = on_get, on_get_ready, on_get_live


class MetricsResource:
    """`/metrics`: Prometheus text, or JSON for who prefers it."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    async def on_get(self, req: Request, resp: Response) -> None:
        from service.api import prometheus  # its library is large, and not every process is asked

        liked = requests.prefers(req.accept, (*_TEXT_TYPES, "application/json"))
        if liked is None:
            raise falcon.HTTPNotAcceptable(description="this answers in text/plain or JSON")
        snapshot = await self._totals.snapshot()
        if liked == "application/json":
            responses.write_json(resp, prometheus.as_json(snapshot))
            return
        accept = req.accept if liked in req.accept else liked
        resp.data, resp.content_type = await asyncio.to_thread(prometheus.text, snapshot, accept)
        resp.set_header("Cache-Control", "no-store")

    on_head = on_get


def _write_health(resp: Response, value: Mapping[str, object]) -> None:
    is_down = value["status"] == "down"
    responses.write_json(resp, value, 503 if is_down else 200)
    if is_down:
        resp.set_header("Retry-After", "1")
