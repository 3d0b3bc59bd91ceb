"""The edge: what is decided of a request before Falcon sees it.

The server hands over a request when its headers are there. Its body is read here, so that a
resource gets all of it as bytes, and what is refused here costs little.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import falcon.asgi
import falcon.inspect
import orjson
from falcon.routing import CompiledRouter

from service.api import problems
from service.api.bodies import Bodies, Receive, Refused, drain

BODY = "pulsequeue.body"
"""The request's body, in the ASGI scope."""
HEADERS = "pulsequeue.headers"
"""A request's headers by lower-case name; of one that came twice, the last."""
BEGAN = "pulsequeue.began"
"""`time.perf_counter()` at which the request's headers were there."""

_is_request_id = re.compile(r"[!-~]{1,128}").fullmatch
_MAX_TARGET_BYTES = 4_096
_MAX_HEADER_BYTES = 16_384
_MAYBE_UNREAD = frozenset({413, 503})
"""Refusals over a body that may still be coming."""

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]


class RequestIds:
    """New request ids: unique over processes, cheap, visible ASCII."""

    def __init__(self) -> None:
        self._prefix = f"{secrets.token_hex(6)}-"
        self._numbers = itertools.count(1)

    def new(self) -> str:
        return f"{self._prefix}{next(self._numbers)}"


class Router(CompiledRouter):
    """Finds a path as it stands: Falcon's own drops slashes that lead, and takes nothing between
    two slashes for a parameter."""

    def find(self, uri: str, req: falcon.Request | None = None) -> Any:
        if "//" in uri or uri.endswith("/"):
            return None
        return super().find(uri, req)


# So that `falcon-inspect-app` shows its routes.
falcon.inspect.register_router(Router)(falcon.inspect.inspect_compiled_router)


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
        super().__init__(router=Router(), **options)
        self.leave = leave
        self._max_bytes, self._refused = max_bytes, refused
        self._bodies = Bodies(body_timeout_seconds)
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:  # type: ignore[override]
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope[BEGAN] = time.perf_counter()
        if b"%2" in scope.get("raw_path", b""):
            _keep_slashes(scope)
        bodies = self._bodies
        try:
            declared = self._look_at_headers(scope)
            body = await bodies.read(declared, self._max_bytes(scope["path"]), receive)
        except Refused as refusal:
            await self._refuse(scope, receive, send, refusal)
            return
        scope[BODY] = body
        size = len(body)
        bodies.held_bytes += size
        try:
            await super().__call__(scope, _Read(body), send)
        finally:
            bodies.held_bytes -= size

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

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refusal: Refused) -> None:
        request_id = scope[problems.REQUEST_ID]
        kind = problems.plain(refusal.status)
        body = orjson.dumps(problems.members(kind, refusal.detail, request_id))
        headers = {
            b"content-type": problems.MEDIA_TYPE.encode(),
            b"content-length": b"%d" % len(body),
            b"x-request-id": request_id.encode(),
        }
        if refusal.status in _MAYBE_UNREAD or refusal.status == HTTPStatus.REQUEST_TIMEOUT:
            headers[b"connection"] = b"close"
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers[b"retry-after"] = b"1"
        start = {"type": "http.response.start", "status": refusal.status}
        await send(start | {"headers": list(headers.items())})
        await send({"type": "http.response.body", "body": body})
        self._refused(scope["method"], refusal.status, scope[BEGAN])
        if refusal.status in _MAYBE_UNREAD:
            await drain(receive)


class _Read:
    """An ASGI `receive` for a body that has been read."""

    __slots__ = ("_event",)

    def __init__(self, body: bytes) -> None:
        self._event: dict[str, Any] = {"type": "http.request", "body": body, "more_body": False}

    async def __call__(self) -> dict[str, Any]:
        event, self._event = self._event, {"type": "http.disconnect"}
        return event


def _keep_slashes(scope: Scope) -> None:
    """A slash that came percent-encoded is no separator (RFC 3986, 2.2); the server has decoded it,
    as it has the rest of the path, so that path is left as it came."""
    raw: bytes = scope["raw_path"]
    if b"%2F" in raw.upper():
        scope["path"] = raw.decode("latin-1")


def _size(value: bytes) -> int:
    if not value.isdigit():
        raise Refused(400, "Content-Length is not a number")
    return int(value)


def _refuse_query(query: bytes) -> None:
    if len(query) > _MAX_TARGET_BYTES:
        raise Refused(414, f"the query is longer than {_MAX_TARGET_BYTES} bytes")
    raise Refused(400, "the query holds characters that are not percent-encoded")
