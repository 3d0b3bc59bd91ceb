"""The API's description of itself."""

from __future__ import annotations

import asyncio

from falcon.asgi import Request, Response

from service.api import requests, responses
from service.catalog import Catalog


class DescriptionResource:
    """`/openapi.json`."""

    def __init__(self, catalog: Catalog, *, max_batch_events: int) -> None:
        self._catalog, self._max_batch_events = catalog, max_batch_events
        self._body: bytes | None = None

    async def on_get(self, req: Request, resp: Response) -> None:
        requests.check_accept(req)
        if self._body is None:
            self._body = await asyncio.to_thread(self._described)
        resp.data, resp.content_type = self._body, responses.JSON

    def _described(self) -> bytes:
        from service.api.openapi import description  # large, and only who asks should pay for it

        return responses.dumps(description(self._catalog, self._max_batch_events))

    on_head = on_get
