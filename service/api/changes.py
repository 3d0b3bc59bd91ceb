"""What clients may ask of events that exist: cancel, retry, retry many."""

from __future__ import annotations

from typing import Any

from falcon.asgi import Request, Response
from marshmallow import Schema, ValidationError, fields, validate

from service.api import queries, requests, responses
from service.api.edge import BODY
from service.api.event_writer import EventWriter
from service.api.schemas import Flag, Moment, field_errors
from service.errors import FieldError, InvalidEvent, InvalidQuery
from service.job import JobStatus
from service.store import Filter
from service.web.process import WebProcess

_RETRYABLE = (str(JobStatus.FAILED), str(JobStatus.CANCELLED))


class CancelResource:
    """`/events/{event_id}/cancel`."""

    def __init__(self, web: WebProcess) -> None:
        self._web = web
        self._writer = EventWriter(web.cpu_lane, web.clock)

    async def on_post(self, req: Request, resp: Response, event_id: str) -> None:
        """200: it is cancelled; 202: whoever processes it is asked to stop."""
        await _check(req, event_id, self._web)
        document = await self._web.single_changes.run(self._web.changes.cancel, event_id)
        processing = document["status"] == JobStatus.PROCESSING
        await self._writer.write(req, resp, document, 202 if processing else 200)


class RetryResource:
    """`/events/{event_id}/retry`."""

    def __init__(self, web: WebProcess) -> None:
        self._web = web
        self._writer = EventWriter(web.cpu_lane, web.clock)

    async def on_post(self, req: Request, resp: Response, event_id: str) -> None:
        """202: it is pending again, with a fresh budget."""
        await _check(req, event_id, self._web)
        document = await self._web.single_changes.run(self._web.changes.retry, event_id)
        await self._writer.write(req, resp, document, 202)


async def _check(req: Request, event_id: str, web: WebProcess) -> None:
    """These take no parameters, and no body but an empty object."""
    requests.check_accept(req)
    requests.no_query(req)
    requests.check_id(event_id)
    if req.scope[BODY]:
        body = await requests.json_body(req, web.cpu_lane, web.settings.max_nesting)
        if body != {}:
            detail = "Not an empty object."
            raise InvalidEvent("this takes no body", [FieldError("", detail)])


class RetryManySchema(Schema):
    """The body of `POST /events/retry`: which events, at least one condition."""

    status = fields.String(
        validate=validate.OneOf(_RETRYABLE), metadata={"description": "default: both"}
    )
    type = fields.String(validate=validate.Length(1, 100))
    schedule = fields.String(validate=validate.Length(1, 100))
    created_after = Moment(metadata={"description": "inclusive"})
    created_before = Moment(metadata={"description": "exclusive"})
    dry_run = Flag(metadata={"description": "only count; default: false"})


_SCHEMA = RetryManySchema()


class RetryManyResource:
    """`/events/retry`."""

    def __init__(self, web: WebProcess) -> None:
        self._web = web

    async def on_post(self, req: Request, resp: Response) -> None:
        """Retries what matches; how many it met and retried, and whether more is left."""
        requests.check_accept(req)
        which, dry_run = await self._asked(req)
        web = self._web
        retried = await web.bulk_changes.run(
            web.changes.retry_many, which, web.bulk_until(), dry_run=dry_run
        )
        more = {"more": True} if retried.more else {}
        responses.write_json(resp, {"matched": retried.matched, "retried": retried.retried, **more})

    async def _asked(self, req: Request) -> tuple[Filter, bool]:
        """The filter, in the body or as parameters like those of `GET /events`."""
        given = queries.parameters(req, (*queries.FILTERS, "dry_run"))
        if given and req.scope[BODY]:
            raise InvalidQuery("the filter is given twice: in the body and as parameters")
        if given:
            return queries.filter_of(given, _RETRYABLE), _flag(given.get("dry_run", "false"))
        body = await requests.json_body(req, self._web.cpu_lane, self._web.settings.max_nesting)
        return _loaded(body)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidQuery("dry_run: not true or false")
    return text == "true"


def _loaded(body: Any) -> tuple[Filter, bool]:
    if type(body) is not dict:
        raise InvalidEvent("the body is no object", [FieldError("", "Not an object.")])
    try:
        loaded: dict[str, Any] = _SCHEMA.load(body)
    except ValidationError as error:
        raise InvalidEvent("the filter doesn't fit", field_errors(error.messages)) from None
    dry_run = loaded.pop("dry_run", False)
    if not loaded:
        detail = "At least one condition is needed, so that nobody retries everything by mistake."
        raise InvalidEvent("the filter is empty", [FieldError("", detail)])
    return Filter(**loaded), dry_run
