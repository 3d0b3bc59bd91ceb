"""Answers with an event as it is now."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from service.api import responses
from service.clock import ServerClock
from service.concurrency.cpu_lane import CpuLane
from service.store.mongo import Document


class EventWriter:
    """A large event becomes JSON on the CPU lane."""

    def __init__(self, cpu_lane: CpuLane, clock: ServerClock) -> None:
        self._cpu_lane, self._clock = cpu_lane, clock

    async def write(
        self, req: Request, resp: Response, document: Document, status: int = 200
    ) -> None:
        """With an `ETag`, and `Retry-After` while it may still change; 304 instead of 200 where the
        client has it."""
        body, tag = await self._cpu_lane.run(
            lambda: responses.tagged_event(document), is_large=responses.is_large(document)
        )
        headers: dict[str, Any] = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Prefer"}
        seconds = responses.retry_after(document, self._clock)
        if seconds is not None:
            headers["Retry-After"] = seconds
        resp.set_headers(headers)
        if_none_match = req.get_header("If-None-Match")
        if status == 200 and if_none_match is not None and responses.matches(if_none_match, tag):
            resp.status = 304
            return
        resp.status = status
        resp.data = body
        resp.content_type = responses.JSON
