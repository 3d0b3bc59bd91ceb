"""The edge: what is decided of a request before Falcon sees it, and what every answer gets.

The server hands over a request when its headers are there. Its body is read here, bounded in size
and time, so that a resource gets all of it as bytes, and a client that never sends one holds
nothing but its connection.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Generator
from http import HTTPStatus
from typing import Any

import falcon.asgi
import orjson

from service.api import problems

_log = logging.getLogger(__name__)
BODY = "pulsequeue.body"
HEADERS = "pulsequeue.headers"
"""A request's headers by lower-case name; of one that came twice, the last."""
BEGAN = "pulsequeue.began"
"""`time.perf_counter()` at which the request's headers were there."""

_is_request_id = re.compile(r"[!-~]{1,128}").fullmatch
_MAX_TARGET_BYTES = 4_096
_MAX_HEADER_BYTES = 16_384
_DRAIN_BYTES, _DRAIN_SECONDS = 33_554_432, 2.0
_BODY_UNREAD = frozenset({408, 413, 503})
_MOST_HELD_BYTES = 268_435_456
"""How much memory the bodies of all requests may take together, per process."""

Scope = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, dict[str, Any]]]
Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]


class Refused(Exception):
    """The request ends here, with this status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class RequestIds:
    """New request ids: unique over processes, cheap, visible ASCII."""

    def __init__(self) -> None:
        self._prefix = f"{secrets.token_hex(6)}-"
        self._numbers = itertools.count(1)

    def new(self) -> str:
        return f"{self._prefix}{next(self._numbers)}"


class WebApp(falcon.asgi.App[falcon.asgi.Request, falcon.asgi.Response]):
    """A Falcon app whose requests have passed the edge."""

    def __init__(
        self,
        *,
        max_bytes: Callable[[str], int],
        body_timeout_seconds: float,
        refused: Callable[[str, int, float], None],
        leave: Callable[[], None],
        **options: Any,
    ) -> None:
        """`max_bytes(path)` bounds a body; `refused(method, status, began)` is told of requests
        that Falcon never sees; `leave` is for the server to call when it is told to stop."""
        super().__init__(**options)
        self.leave = leave
        self._max_bytes, self._body_timeout_seconds = max_bytes, body_timeout_seconds
        self._refused = refused
        self._ids = RequestIds()
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:  # type: ignore[override]
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope[BEGAN] = time.perf_counter()
        try:
            declared = self._look_at_headers(scope)
            most = self._max_bytes(scope["path"])
            if declared is not None and declared > most:
                raise Refused(413, f"the body has {declared} bytes, and {most} are allowed")
            body = await self._body(most, receive)
        except Refused as refusal:
            await self._refuse(scope, receive, send, refusal)
            return
        if body is None:
            return
        scope[BODY] = body
        held = len(body)
        self._held_bytes += held
        try:
            await super().__call__(scope, _Read(body), send)
        finally:
            self._held_bytes -= held

    def _look_at_headers(self, scope: Scope) -> int | None:
        """Notes the request's id; the declared size of its body, None: it comes in chunks."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        scope[HEADERS] = headers
        text = headers.get(b"x-request-id", b"").decode("latin-1")
        scope[problems.REQUEST_ID] = text if text and _is_request_id(text) else self._ids.new()
        if sum(map(len, headers.values())) > _MAX_HEADER_BYTES:
            raise Refused(431, f"the headers are longer than {_MAX_HEADER_BYTES} bytes together")
        query = scope["query_string"]
        if query and (len(query) > _MAX_TARGET_BYTES or not query.isascii()):
            _refuse_query(query)
        if len(scope["path"]) > _MAX_TARGET_BYTES:
            raise Refused(414, f"the path is longer than {_MAX_TARGET_BYTES} bytes")
        if b"transfer-encoding" in headers:
            return None
        return _size(headers.get(b"content-length", b"0"))

    async def _body(self, most: int, receive: Receive) -> bytes | None:
        """All of it; None where the client is gone. Raises `Refused`."""
        coroutine = receive()
        try:
            waits_for = coroutine.send(None)
        except StopIteration as arrived:  # it was there: no timer is needed
            event = arrived.value
            if event["type"] == "http.request" and not event.get("more_body", False):
                body: bytes = event.get("body", b"")
                return body if len(body) <= most else _too_large(most)
            rest: Coroutine[Any, Any, dict[str, Any]] | None = None
        else:
            event, rest = None, _Resumed(coroutine, waits_for).finish()
        try:
            async with asyncio.timeout(self._body_timeout_seconds):
                return await self._gather(event, rest, receive, most)
        except TimeoutError:
            detail = f"the body did not arrive within {self._body_timeout_seconds:g} s"
            raise Refused(408, detail) from None

    async def _gather(
        self,
        event: dict[str, Any] | None,
        rest: Coroutine[Any, Any, dict[str, Any]] | None,
        receive: Receive,
        most: int,
    ) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                event = event or await (rest or receive())
                if event["type"] != "http.request":
                    return None
                chunk = event.get("body", b"")
                size += len(chunk)
                self._held_bytes += len(chunk)
                if size > most:
                    _too_large(most)
                if self._held_bytes > _MOST_HELD_BYTES:
                    raise Refused(503, "too many large bodies at once")
                chunks.append(chunk)
                if not event.get("more_body", False):
                    return b"".join(chunks)
                event = rest = None
        finally:
            self._held_bytes -= size

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refusal: Refused) -> None:
        request_id = scope[problems.REQUEST_ID]
        kind = problems.plain(refusal.status)
        body = orjson.dumps(problems.members(kind, refusal.detail, request_id))
        headers = [
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
        ]
        if refusal.status in _BODY_UNREAD:
            headers.append((b"connection", b"close"))
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._refused(scope["method"], refusal.status, scope[BEGAN])
        if refusal.status in _BODY_UNREAD - {408}:
            await _drain(receive)


class _Read:
    """An ASGI `receive` for a body that has been read."""

    __slots__ = ("_event",)

    def __init__(self, body: bytes) -> None:
        self._event: dict[str, Any] = {"type": "http.request", "body": body, "more_body": False}

    async def __call__(self) -> dict[str, Any]:
        event, self._event = self._event, {"type": "http.disconnect"}
        return event


class _Resumed:
    """Awaits a coroutine that has already been run up to its first wait."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            yield self._waits_for
        except BaseException:
            self._coroutine.close()
            raise
        return (yield from self._coroutine.__await__())

    async def finish(self) -> dict[str, Any]:
        event: dict[str, Any] = await self
        return event


async def _drain(receive: Receive) -> None:
    """Reads on for a moment: a connection closed over unread bytes is reset, and the client would
    lose the answer that tells it why."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                event = await receive()
                left -= len(event.get("body", b""))
                if event["type"] != "http.request" or not event.get("more_body", False):
                    return
    except TimeoutError:
        pass


def _size(value: bytes) -> int:
    if not value.isdigit():
        raise Refused(400, "Content-Length is not a number")
    return int(value)


def _too_large(most: int) -> bytes:
    raise Refused(413, f"the body has more than the {most} bytes that are allowed")


def _refuse_query(query: bytes) -> None:
    if len(query) > _MAX_TARGET_BYTES:
        raise Refused(414, f"the query is longer than {_MAX_TARGET_BYTES} bytes")
    raise Refused(400, "the query holds characters that are not percent-encoded")
