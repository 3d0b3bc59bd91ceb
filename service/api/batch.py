"""Posting many events at once: each one by itself is accepted or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from falcon.asgi import Request, Response

from service.api import answers, problems, requests
from service.api.edge import BODY
from service.api.intake import Intake
from service.api.strict_json import check_storable
from service.errors import (
    FieldError,
    InvalidEvent,
    InvalidQuery,
    PulseQueueError,
    StoreUnavailable,
)
from service.mongo import Document
from service.store import Accepted
from service.web import WebProcess

_MANY = 50
Taken = Document | PulseQueueError
"""An event that is fit to be stored, or why it isn't."""


class BatchResource:
    """`/events/batch`."""

    def __init__(self, web: WebProcess, intake: Intake) -> None:
        self._web, self._intake, self._settings = web, intake, web.settings

    async def on_post(self, req: Request, resp: Response) -> None:
        """202 where all were accepted, 207 where some were not."""
        requests.check_accept(req)
        requests.no_query(req)
        if req.get_header("Idempotency-Key") is not None:
            raise InvalidQuery("Idempotency-Key: each event of a batch brings its own key")
        parsed = await requests.parsed_body(req, self._web.aside, self._settings.max_nesting)
        items = self._items(parsed.value)
        request_id, traceparent = problems.request_id_of(req), requests.traceparent(req)
        taken = await self._web.aside.run(
            lambda: [
                self._take(item, request_id, traceparent, parsed.is_suspicious) for item in items
            ],
            is_large=len(items) > _MANY,
        )
        outcomes = await self._accept(taken, len(req.scope[BODY]))
        results = [_result(outcome, request_id) for outcome in outcomes]
        resp.status = 202 if all(isinstance(o, Accepted) for o in outcomes) else 207
        resp.data = answers.dumps({"results": results})
        resp.content_type = answers.JSON
        resp.set_header("Retry-After", "1")

    def _items(self, body: Any) -> list[Any]:
        most = self._settings.max_batch_events
        if type(body) is not dict or type(body.get("events")) is not list or len(body) != 1:
            detail = "not an object with `events`, a list, and nothing else"
            raise InvalidEvent(f"the body is {detail}", [FieldError("", detail.capitalize())])
        items: list[Any] = body["events"]
        if not 1 <= len(items) <= most:
            detail = f"a batch holds 1 to {most} events, and this one {len(items)}"
            raise InvalidEvent(detail, [FieldError("/events", detail)])
        return items

    def _take(
        self, item: Any, request_id: str, traceparent: str | None, is_suspicious: bool
    ) -> Taken:
        try:
            if is_suspicious:
                check_storable(item)
            self._check_size(item)
            return self._intake.item(item, request_id, traceparent)
        except PulseQueueError as error:
            return error

    def _check_size(self, item: Any) -> None:
        most = self._settings.max_body_bytes
        size = len(answers.dumps(item))
        if size > most:
            detail = f"an event of {size} bytes, and {most} are allowed"
            raise InvalidEvent(detail, [FieldError("", detail)])

    async def _accept(self, taken: Sequence[Taken], size: int) -> list[Accepted | Exception]:
        """An outcome for each. Raises `StoreUnavailable` where that kept all out."""
        documents = [one for one in taken if isinstance(one, dict)]
        if documents:
            self._web.backlog.check(len(documents))
        stored = await self._web.acceptor.accept_many(documents, size)
        lost = next((o for o in stored if isinstance(o, StoreUnavailable)), None)
        if lost is not None and not any(isinstance(o, Accepted) for o in stored):
            raise lost
        answered = iter(stored)
        return [one if isinstance(one, Exception) else next(answered) for one in taken]


def _result(outcome: Accepted | Exception, request_id: str) -> dict[str, Any]:
    if isinstance(outcome, Accepted):
        made = answers.accepted(outcome)
        return made | {"replayed": True} if outcome.replayed else made
    if isinstance(outcome, PulseQueueError):
        return {"error": problems.problem(outcome, request_id)}
    return {"error": problems.unexpected(request_id)}
