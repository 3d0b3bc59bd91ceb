"""Posting events and looking at one."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response

from service.api import answers, problems, requests
from service.api.intake import Intake
from service.clock import ServerClock
from service.mongo import Document
from service.store import Accepted
from service.web import WebProcess


class EventsResource:
    """`/events`."""

    def __init__(self, web: WebProcess, intake: Intake) -> None:
        self._web, self._intake = web, intake
        self._max_nesting = web.settings.max_nesting

    async def on_post(self, req: Request, resp: Response) -> None:
        """Accepts one event: 202, after MongoDB's word."""
        requests.check_accept(req)
        key = requests.idempotency_key(req)
        document = self._intake.single(
            requests.json_body(req, self._max_nesting),
            key,
            problems.request_id_of(req),
            requests.traceparent(req),
        )
        self._web.backlog.check()
        answer = await self._web.acceptor.accept(document)
        _write_accepted(resp, answer, self._web.clock)


def _write_accepted(resp: Response, answer: Accepted, clock: ServerClock) -> None:
    made = answers.accepted(answer)
    resp.status = 202
    resp.data = answers.dumps(made)
    resp.content_type = answers.JSON
    resp.set_header("Location", made["links"]["self"])
    seconds = answers.retry_after(answer.document, clock.now())
    if seconds is not None:
        resp.set_header("Retry-After", seconds)
    if answer.replayed:
        resp.set_header("Idempotency-Replayed", "true")


class EventResource:
    """`/events/{event_id}`."""

    def __init__(self, web: WebProcess) -> None:
        self._web = web

    async def on_get(self, req: Request, resp: Response, event_id: str) -> None:
        """The event as it is now: 200, or 304 where the client has it."""
        requests.check_accept(req)
        requests.no_query(req)
        document = await self._web.lookup.get(requests.checked_id(event_id))
        write_event(req, resp, document, self._web.clock)

    on_head = on_get


def write_event(
    req: Request, resp: Response, document: Document, clock: ServerClock, status: int = 200
) -> None:
    """An event with its `ETag`, and `Retry-After` while it may still change."""
    body = answers.dumps(answers.event(document))
    tag = answers.etag(body)
    headers: dict[str, Any] = {"ETag": tag, "Cache-Control": "no-cache"}
    seconds = answers.retry_after(document, clock.now())
    if seconds is not None:
        headers["Retry-After"] = seconds
    resp.set_headers(headers)
    if_none_match = req.get_header("If-None-Match")
    if status == 200 and if_none_match is not None and answers.matches(if_none_match, tag):
        resp.status = 304
        return
    resp.status = status
    resp.data = body
    resp.content_type = answers.JSON
