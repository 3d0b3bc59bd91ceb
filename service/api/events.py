"""Posting events, and looking at them."""

from __future__ import annotations

import asyncio
from functools import partial

from falcon.asgi import Request, Response

from service.api import problems, queries, requests, responses
from service.api.event_writer import EventWriter
from service.api.intake import Intake
from service.clock import ServerClock
from service.concurrency.cpu_lane import CpuLane, Steps
from service.store import Accepted
from service.store.mongo import Document
from service.web.accept import Acceptor
from service.web.long_poll import LongPoll
from service.web.lookup import Lookup
from service.web.page_reader import PageReader


class EventsResource:
    """`/events`."""

    def __init__(
        self,
        intake: Intake,
        acceptor: Acceptor,
        pages: PageReader,
        cpu_lane: CpuLane,
        clock: ServerClock,
        *,
        max_nesting: int,
    ) -> None:
        self._intake, self._acceptor, self._pages = intake, acceptor, pages
        self._cpu_lane, self._clock, self._max_nesting = cpu_lane, clock, max_nesting

    async def on_post(self, req: Request, resp: Response) -> None:
        """Accepts one event: 202, after MongoDB's word."""
        requests.check_accept(req)
        if req.query_string:
            requests.no_query(req)
        key = requests.idempotency_key(req)
        body = requests.checked_body(req)
        take = partial(
            self._taken, body, key, problems.request_id_of(req), requests.traceparent(req)
        )
        if requests.is_large(body):
            async with self._cpu_lane.room(len(body)):
                document = await self._cpu_lane.run(take, is_large=True)
                answer = await self._acceptor.accept(document, len(body))
        else:
            answer = await self._acceptor.accept(take(), len(body))
        _write_accepted(resp, answer, self._clock)

    def _taken(
        self, body: bytes, key: str | None, request_id: str, traceparent: str | None
    ) -> Document:
        value = requests.storable_json(body, self._max_nesting)
        return self._intake.single(value, key, request_id, traceparent, len(body))

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of events, newest first."""
        requests.check_accept(req)
        given = queries.parameters(req, (*queries.FILTERS, "limit", "cursor"))
        which, limit = queries.filter_of(given), queries.limit_of(given)
        below = queries.cursor_of(given)
        page, more = await self._pages.read(which, limit, below)
        cursor = queries.cursor_at(page[-1]["_id"]) if more else None
        resp.data = await self._cpu_lane.run_steps(
            _page(page, cursor), is_large=responses.is_large(*page)
        )
        responses.set_page_headers(resp, "/events", given, cursor)

    on_head = on_get


def _page(documents: list[Document], cursor: str | None) -> Steps[bytes]:
    """Event by event: a page may be as large as four of the largest events."""
    events = []
    for document in documents:
        events.append(responses.dumps(responses.event(document)))
        yield
    return b'{"events":[%b],"next_cursor":%b}' % (b",".join(events), responses.dumps(cursor))


def _write_accepted(resp: Response, answer: Accepted, clock: ServerClock) -> None:
    resp.status = 202
    resp.data = responses.accepted_json(answer)
    resp.content_type = responses.JSON
    resp.set_header("Location", responses.path(answer.document["_id"]))
    if answer.replayed or answer.document["run_at"] is not None:
        seconds = responses.retry_after(answer.document, clock)
    else:
        seconds = responses.POLL_SECONDS
    if seconds is not None:
        resp.set_header("Retry-After", seconds)
    if answer.replayed:
        resp.set_header("Idempotency-Replayed", "true")


class EventResource:
    """`/events/{event_id}`."""

    def __init__(self, lookup: Lookup, long_poll: LongPoll, writer: EventWriter) -> None:
        self._lookup, self._long_poll, self._writer = lookup, long_poll, writer

    async def on_get(self, req: Request, resp: Response, event_id: str) -> None:
        """The event as it is now: 200, or 304 where the client has it."""
        requests.check_accept(req)
        requests.no_query(req)
        requests.check_id(event_id)
        seconds = requests.wait_seconds(req)
        if seconds is None:
            document = await self._lookup.get(event_id)
        else:
            document = await self._final(resp, event_id, seconds)
        await self._writer.write(req, resp, document)

    on_head = on_get

    async def _final(self, resp: Response, event_id: str, seconds: int) -> Document:
        """The event once it has ended, or as it is when the time is up."""
        with self._long_poll.expect(event_id) as ended:
            document = await self._lookup.get(event_id)
            if ended is None:
                return document
            resp.set_header("Preference-Applied", f"wait={seconds}")
            if responses.is_final(document) or not seconds:
                return document
            await asyncio.wait([ended], timeout=seconds)
        return await self._lookup.get(event_id)
