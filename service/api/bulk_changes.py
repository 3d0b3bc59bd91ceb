"""What clients may ask of all events that match a filter: cancel, retry."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, ClassVar

from falcon.asgi import Request, Response
from marshmallow import Schema, ValidationError, fields, validate

from service.api import queries, requests, responses
from service.api.edge import BODY
from service.api.schemas import Flag, Moment, field_errors, label_field
from service.errors import FieldError, InvalidEvent, InvalidQuery
from service.job import JobStatus
from service.labels import LABELS, labels_of, without_type
from service.store import Filter
from service.web.actions import Tally
from service.web.process import WebProcess

_CANCELLABLE = (str(JobStatus.PENDING), str(JobStatus.PROCESSING))
_RETRYABLE = (str(JobStatus.FAILED), str(JobStatus.CANCELLED))


def _status(allowed: Collection[str]) -> fields.String:
    return fields.String(
        validate=validate.OneOf(allowed), metadata={"description": "default: both"}
    )


class ManySchema(Schema):
    """Which events, at least one condition."""

    class Meta:
        include: ClassVar = {label.name: label_field(label) for label in LABELS}

    type = fields.String(validate=validate.Length(1, 100))
    created_after = Moment(metadata={"description": "inclusive"})
    created_before = Moment(metadata={"description": "exclusive"})
    dry_run = Flag(metadata={"description": "only count; default: false"})


class CancelManySchema(ManySchema):
    """The body of `POST /events/cancel`."""

    status = _status(_CANCELLABLE)


class RetryManySchema(ManySchema):
    """The body of `POST /events/retry`."""

    status = _status(_RETRYABLE)


class _ManyResource:
    """Changes what matches a filter, which is in the body, or in parameters like those of
    `GET /events`; `names`: of the counts in the answer."""

    def __init__(
        self,
        web: WebProcess,
        act: Callable[..., Tally],
        schema: Schema,
        statuses: Collection[str],
        names: Collection[str],
    ) -> None:
        self._web, self._act, self._schema = web, act, schema
        self._statuses, self._names = statuses, names

    async def on_post(self, req: Request, resp: Response) -> None:
        """How many it met and changed, and whether more is left."""
        requests.check_accept(req)
        which, dry_run = await self._asked(req)
        web = self._web
        tally = await web.bulk_changes.run(self._act, which, web.bulk_until(), dry_run=dry_run)
        counts = dict(zip(self._names, tally.counts, strict=False))
        more = {"more": True} if tally.more else {}
        responses.write_json(resp, {"matched": tally.matched, **counts, **more})

    async def _asked(self, req: Request) -> tuple[Filter, bool]:
        given = queries.parameters(req, (*queries.FILTERS, "dry_run"))
        if given and req.scope[BODY]:
            raise InvalidQuery("the filter is given twice: in the body and as parameters")
        if given:
            return queries.filter_of(given, self._statuses), _flag(given.get("dry_run", "false"))
        body = await requests.json_body(req, self._web.cpu_lane, self._web.settings.max_nesting)
        return self._loaded(body)

    def _loaded(self, body: Any) -> tuple[Filter, bool]:
        if type(body) is not dict:
            raise InvalidEvent("the body is no object", [FieldError("", "Not an object.")])
        try:
            loaded: dict[str, Any] = self._schema.load(body)
        except ValidationError as error:
            errors = field_errors(error.messages)
            raise InvalidEvent("the filter doesn't fit", errors) from None
        dry_run = loaded.pop("dry_run", False)
        if not loaded:
            detail = "At least one condition is needed, so that nobody means all by mistake."
            raise InvalidEvent("the filter is empty", [FieldError("", detail)])
        return _filter(loaded), dry_run


class CancelManyResource(_ManyResource):
    """`/events/cancel`."""

    def __init__(self, web: WebProcess) -> None:
        act, names = web.actions.cancel_many, ("cancelled", "asked")
        super().__init__(web, act, CancelManySchema(), _CANCELLABLE, names)


class RetryManyResource(_ManyResource):
    """`/events/retry`."""

    def __init__(self, web: WebProcess) -> None:
        act, names = web.actions.retry_many, ("retried",)
        super().__init__(web, act, RetryManySchema(), _RETRYABLE, names)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidQuery("dry_run: not true or false")
    return text == "true"


def _filter(loaded: dict[str, Any]) -> Filter:
    labels = labels_of(loaded)
    if "type" not in loaded and (name := without_type(labels)) is not None:
        detail = "Only with a type, to which it belongs."
        raise InvalidEvent("the filter doesn't fit", [FieldError(f"/{name}", detail)])
    rest = {name: value for name, value in loaded.items() if name not in labels}
    return Filter(**rest, labels=labels)
