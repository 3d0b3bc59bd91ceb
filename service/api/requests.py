"""What resources read of a request: headers, parameters and bodies."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import falcon
from falcon.asgi import Request

from service.api import strict_json
from service.api.edge import BODY
from service.errors import InvalidQuery
from service.ids import is_id

_is_key = re.compile(r"[!-~]{1,255}").fullmatch
_is_traceparent = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
).fullmatch
_prefers_wait = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?:[,;]|$)", re.I).search
MAX_WAIT_SECONDS = 20


def json_body(req: Request, max_nesting: int) -> Any:
    """The parsed body. Raises for what is no JSON by its headers (411, 415) or by itself."""
    headers = req.headers_bytes
    if req.content_type != "application/json":
        _check_content_type(req.content_type, bool(req.scope[BODY]))
    if (encoding := headers.get(b"content-encoding")) and encoding.lower() != b"identity":
        raise falcon.HTTPUnsupportedMediaType(
            description="the body must not be compressed: no Content-Encoding but identity"
        )
    body: bytes = req.scope[BODY]
    if not body and b"content-length" not in headers and b"transfer-encoding" not in headers:
        raise falcon.HTTPLengthRequired(description="a body is needed, and its Content-Length")
    return strict_json.parse(body, max_nesting)
