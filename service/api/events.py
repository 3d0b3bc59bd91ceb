"""Posting events, and looking at them."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from falcon.asgi import Request, Response

from service.api import answers, problems, queries, requests
from service.api.edge import BODY
from service.api.intake import Intake
from service.clock import ServerClock
from service.errors import StoreLate, TooSlow
from service.mongo import Document
from service.store import Accepted
from service.web import LISTING_SECONDS, WebProcess

_MOST_PAGE_BYTES = 4_194_304
"""A page of large events ends before its limit."""
_TOO_SLOW = (
    f"MongoDB did not find this page within {LISTING_SECONDS:g} s: few events match among very "
    "many; a shorter time (created_after, created_before) or another filter is quicker"
)


class EventsResource:
    """`/events`."""

    def __init__(self, web: WebProcess, intake: Intake) -> None:
        self._web, self._intake = web, intake
        self._max_nesting = web.settings.max_nesting

    async def on_post(self, req: Request, resp: Response) -> None:
        """Accepts one event: 202, after MongoDB's word."""
        requests.check_accept(req)
        if req.query_string:
            requests.no_query(req)
        key = requests.idempotency_key(req)
        body = await requests.json_body(req, self._web.aside, self._max_nesting)
        document = self._intake.single(
            body, key, problems.request_id_of(req), requests.traceparent(req)
        )
        self._web.backlog.check()
        answer = await self._web.acceptor.accept(document, len(req.scope[BODY]))
        _write_accepted(resp, answer, self._web.clock)

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of events, newest first."""
        requests.check_accept(req)
        given = queries.parameters(req, (*queries.FILTERS, "limit", "cursor"))
        which, limit = queries.filter_of(given), queries.limit_of(given)
        below = queries.cursor_of(given)
        try:
            page, more = await self._web.listings.run(
                self._web.stores.listing.bounded_page, which, limit, below, _MOST_PAGE_BYTES
            )
        except StoreLate:
            raise TooSlow(_TOO_SLOW) from None
        cursor = queries.cursor_at(page[-1]["_id"]) if more else None
        resp.data = await asyncio.to_thread(_page, page, cursor)
        resp.content_type = answers.JSON
        resp.set_header("Cache-Control", "no-cache")
        if cursor is not None:
            target = urlencode({**given, "cursor": cursor})
            resp.set_header("Link", f'</events?{target}>; rel="next"')

    on_head = on_get


def _page(documents: list[Document], cursor: str | None) -> bytes:
    events = [answers.event(document) for document in documents]
    return answers.dumps({"events": events, "next_cursor": cursor})


def _write_accepted(resp: Response, answer: Accepted, clock: ServerClock) -> None:
    resp.status = 202
    resp.data = answers.accepted_json(answer)
    resp.content_type = answers.JSON
    resp.set_header("Location", answers.path(answer.document["_id"]))
    if answer.replayed or answer.document["run_at"] is not None:
        seconds = answers.retry_after(answer.document, clock)
    else:
        seconds = answers.POLL_SECONDS
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
        requests.check_id(event_id)
        seconds = requests.wait_seconds(req)
        if seconds is None:
            document = await self._web.lookup.get(event_id)
        else:
            document = await self._final(resp, event_id, seconds)
        write_event(req, resp, document, self._web.clock)

    on_head = on_get

    async def _final(self, resp: Response, event_id: str, seconds: int) -> Document:
        """The event once it has ended, or as it is when the time is up."""
        with self._web.waiting.expect(event_id) as ended:
            document = await self._web.lookup.get(event_id)
            if ended is None:
                return document
            resp.set_header("Preference-Applied", f"wait={seconds}")
            if answers.is_final(document) or not seconds:
                return document
            await asyncio.wait([ended], timeout=seconds)
        return await self._web.lookup.get(event_id)


def write_event(
    req: Request, resp: Response, document: Document, clock: ServerClock, status: int = 200
) -> None:
    """An event with its `ETag`, and `Retry-After` while it may still change."""
    body = answers.dumps(answers.event(document))
    tag = answers.etag(body)
    headers: dict[str, Any] = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Prefer"}
    seconds = answers.retry_after(document, clock)
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
