"""Posting many events at once: each one by itself is accepted or refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from falcon.asgi import Request, Response

from service.api import batch_body, problems, requests, responses, strict_json
from service.api.intake import Intake
from service.api.strict_json import Part
from service.concurrency.cpu_lane import CpuLane, Steps
from service.errors import (
    FieldError,
    InvalidEvent,
    InvalidQuery,
    PulseQueueError,
    StoreUnavailable,
)
from service.store import Accepted
from service.store.mongo import Document
from service.web.accept import Acceptor

_SMALL_BYTES = 4_096
"""Of a batch: each of its events takes longer than its bytes do."""
_STEP_RESULTS = 50
Taken = Document | PulseQueueError
"""An event that is fit to be stored, or why it isn't."""
_NO_BATCH = "not an object with `events`, a list, and nothing else"


class Limits(NamedTuple):
    """How large a batch and its events may be."""

    events: int
    event_bytes: int
    nesting: int


class BatchResource:
    """`/events/batch`."""

    def __init__(
        self, intake: Intake, acceptor: Acceptor, cpu_lane: CpuLane, limits: Limits
    ) -> None:
        self._intake, self._acceptor = intake, acceptor
        self._cpu_lane, self._limits = cpu_lane, limits

    async def on_post(self, req: Request, resp: Response) -> None:
        """202 where all were accepted, 207 where some were not."""
        requests.check_accept(req)
        requests.no_query(req)
        if req.get_header("Idempotency-Key") is not None:
            raise InvalidQuery("Idempotency-Key: each event of a batch brings its own key")
        body = requests.checked_body(req)
        async with self._cpu_lane.room(len(body)):
            resp.status, resp.data = await self._answer(req, body)
        resp.content_type = responses.JSON
        resp.set_header("Retry-After", "1")

    async def _answer(self, req: Request, body: bytes) -> tuple[int, bytes]:
        lane, is_large = self._cpu_lane, len(body) > _SMALL_BYTES
        steps = _Taking(self._intake, self._limits, req).all(body)
        taken = await lane.run_steps(steps, is_large=is_large)
        outcomes = await self._accept(taken, len(body))
        status = 202 if all(isinstance(o, Accepted) for o in outcomes) else 207
        written = _written(outcomes, problems.request_id_of(req))
        return status, await lane.run_steps(written, is_large=is_large)

    async def _accept(self, taken: Sequence[Taken], size: int) -> list[Accepted | Exception]:
        """An outcome for each. Raises `StoreUnavailable` where that kept all out."""
        documents = [one for one in taken if isinstance(one, dict)]
        stored = await self._acceptor.accept_many(documents, size)
        lost = next((o for o in stored if isinstance(o, StoreUnavailable)), None)
        if lost is not None and not any(isinstance(o, Accepted) for o in stored):
            raise lost
        answered = iter(stored)
        return [one if isinstance(one, Exception) else next(answered) for one in taken]


class _Taking:
    """Makes documents of one batch. A batch that is larger than an event may be is parsed event by
    event: so only one of them is there as parsed JSON at a time."""

    def __init__(self, intake: Intake, limits: Limits, req: Request) -> None:
        self._intake, self._limits = intake, limits
        self._request_id, self._traceparent = problems.request_id_of(req), requests.traceparent(req)

    def all(self, body: bytes) -> Steps[list[Taken]]:
        """Raises `MalformedBody`, `InvalidEvent` where it isn't a batch."""
        if len(body) > self._limits.event_bytes:
            return (yield from self._all_by_parts(body))
        parsed = strict_json.parse(body, self._limits.nesting)
        items = self._items(parsed.value)
        yield
        taken = []
        for item in items:
            size = len(responses.dumps(item)) if len(body) > _SMALL_BYTES else 0
            taken.append(self._taken(item, size, parsed.is_suspicious))
            yield
        return taken

    def _items(self, body: Any) -> list[Any]:
        if type(body) is not dict or type(body.get("events")) is not list or len(body) != 1:
            raise _no_batch()
        items: list[Any] = body["events"]
        self._check_count(len(items))
        return items

    def _all_by_parts(self, body: bytes) -> Steps[list[Taken]]:
        most = self._limits.events
        parts = yield from batch_body.parts(body, most)
        if parts is None:
            raise _no_batch()
        self._check_count(len(parts))
        taken = []
        for part in parts:
            taken.append(self._taken_part(body, part))
            yield
        return taken

    def _taken_part(self, body: bytes, part: Part) -> Taken:
        """Raises `MalformedBody`."""
        size, most = part.end - part.begin, self._limits.event_bytes
        if size > most:
            detail = f"an event of {size} bytes, and {most} are allowed"
            return InvalidEvent(detail, [FieldError("", detail)])
        parsed = strict_json.parse(body, self._limits.nesting, part)
        return self._taken(parsed.value, size, parsed.is_suspicious)

    def _taken(self, item: Any, size: int, is_suspicious: bool) -> Taken:
        try:
            if is_suspicious:
                strict_json.check_storable(item)
            return self._intake.item(item, self._request_id, self._traceparent, size)
        except PulseQueueError as error:
            # It may be kept for long: without the frames that hold what was parsed.
            error.__context__ = None
            return error.with_traceback(None)

    def _check_count(self, count: int) -> None:
        most = self._limits.events
        if not 1 <= count <= most:
            more = "more" if count > most else "none"
            detail = f"a batch holds 1 to {most} events, and this one {more}"
            raise InvalidEvent(detail, [FieldError("/events", detail)])


def _no_batch() -> InvalidEvent:
    return InvalidEvent(f"the body is {_NO_BATCH}", [FieldError("", _NO_BATCH.capitalize())])


def _written(outcomes: Iterable[Accepted | Exception], request_id: str) -> Steps[bytes]:
    """The answer's body, as JSON."""
    results = []
    for outcome in outcomes:
        results.append(_result(outcome, request_id))
        if len(results) % _STEP_RESULTS == 0:
            yield
    return b'{"results":[%b]}' % b",".join(results)


def _result(outcome: Accepted | Exception, request_id: str) -> bytes:
    if isinstance(outcome, Accepted):
        made = responses.accepted_json(outcome)
        return made[:-1] + b',"replayed":true}' if outcome.replayed else made
    if isinstance(outcome, PulseQueueError):
        return responses.dumps({"error": problems.problem(outcome, request_id)})
    return responses.dumps({"error": problems.unexpected(request_id)})
