"""What clients may ask of an event that exists: cancel, retry."""

from __future__ import annotations

from falcon.asgi import Request, Response

from service.api import requests
from service.api.edge import BODY
from service.api.event_writer import EventWriter
from service.errors import FieldError, InvalidEvent
from service.job import JobStatus
from service.web.process import WebProcess


class CancelResource:
    """`/events/{event_id}/cancel`."""

    def __init__(self, web: WebProcess) -> None:
        self._web = web
        self._writer = EventWriter(web.cpu_lane, web.clock)

    async def on_post(self, req: Request, resp: Response, event_id: str) -> None:
        """200: it is cancelled; 202: whoever processes it is asked to stop."""
        await _check(req, event_id, self._web)
        document = await self._web.single_changes.run(self._web.actions.cancel, event_id)
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
        document = await self._web.single_changes.run(self._web.actions.retry, event_id)
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
