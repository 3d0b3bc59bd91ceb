"""`webhook`: delivers a JSON body by HTTP POST, signed as Standard Webhooks says.

What an answer means:

    2xx                   delivered; the body doesn't matter, and can't undo it
    410                   final: the receiver wants no more (Standard Webhooks)
    3xx                   final: redirects are not followed
    any other, no answer  tried again by backoff, or when the answer's Retry-After says (up to 1 h)

Other 4xx are tried again as 5xx are: a wrong route, a revoked token, a deploy that rejects what the
last one took are mended at the receiver's end, and then the message should still arrive.

Delivery is at least once: a receiver that answers too late, or whose answer is lost, gets the
message again, with the same `webhook-id`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any

import orjson
from marshmallow import Schema, ValidationError, fields, validates

from service.backoff import Backoff
from service.catalog import Context, event_type
from service.errors import Cancelled, PulseQueueError, Reject, RetryLater
from service.outbound.hosts import TargetRefused
from service.outbound.signing import secrets, signed
from service.outbound.targets import MAX_URL_CHARACTERS
from service.settings import Settings

if TYPE_CHECKING:  # a large library, for processes that do deliver
    import httpx

    from service.outbound.reply import Reply
    from service.outbound.sender import Outbound

MAX_HEADERS, MAX_NAME_CHARACTERS, MAX_VALUE_CHARACTERS = 32, 128, 4_096
MAX_HEADERS_CHARACTERS = 8_192
"""Names and values together: what common servers take."""
LONGEST_RETRY_AFTER_SECONDS = 3_600
_SHORTEST_RETRY_AFTER_SECONDS = 1
_SHARE_OF_TIME_LIMIT = 0.9  # so that an attempt ends by its own words, not by being cut off
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?|")  # RFC 9110, 5.5, ASCII only
_RESERVED = re.compile(
    r"host|content-(?:length|type|encoding)|accept-encoding|expect|traceparent|tracestate"
    r"|connection|keep-alive|te|trailer|transfer-encoding|upgrade|http2-settings"  # hop by hop
    r"|proxy-.*|forwarded|x-forwarded-.*|x-real-ip|webhook-.*",
    re.IGNORECASE,
)


class NotDelivered(PulseQueueError):
    """The receiver answered, but not with success: the next attempt may fare better."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the settings say about deliveries."""

    outbound: Outbound
    keys: tuple[bytes, ...] = ()
    timeout_seconds: float = 15.0

    @classmethod
    def from_settings(cls, settings: Settings) -> Delivery:
        """Raises `SettingError`."""
        from service.outbound.sender import Outbound

        return cls(
            Outbound.from_settings(settings),
            secrets(settings.webhook_secrets),
            settings.webhook_timeout_seconds,
        )


@cache
def delivery() -> Delivery:
    """The process's own, made when first asked for."""
    return Delivery.from_settings(Settings.from_env())


class _Headers(fields.Dict):
    """A map of texts, whose errors are by header: `{"X": [...]}`, not `{"X": {"value": [...]}}`."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._deserialize(*args, **kwargs)  # type: ignore[no-untyped-call]
        except ValidationError as error:
            if not isinstance(error.messages, dict):
                raise
            by_header = error.messages.items()
            raise ValidationError(
                {name: list(chain(*by.values())) for name, by in by_header}
            ) from None


class WebhookPayload(Schema):
    """Where to, what, and headers to send with it."""

    url = fields.String(
        required=True,
        metadata={
            "description": "http or https, no credentials, no fragment; one of the allowed hosts",
            "format": "uri",
            "maxLength": MAX_URL_CHARACTERS,
            "example": "https://hooks.example.com/orders",
        },
    )
    body = fields.Raw(
        allow_none=True,
        metadata={"description": "any JSON value, sent as the request's body; default null"},
    )
    headers = _Headers(
        keys=fields.String(),
        values=fields.String(),
        metadata={
            "description": f"up to {MAX_HEADERS} more request headers; none that concerns the "
            "connection, the encoding, forwarding or the signature",
            "maxProperties": MAX_HEADERS,
            "example": {"Authorization": "Bearer 5f1b"},
        },
    )

    @validates("url")
    def _is_allowed(self, value: str, **_: Any) -> None:
        try:
            delivery().outbound.target(value)
        except TargetRefused as error:
            raise ValidationError(str(error)) from None

    @validates("headers")
    def _are_sendable(self, value: dict[str, str], **_: Any) -> None:
        check_headers(value)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises `ValidationError`, by header where it is one's own fault."""
    if len(headers) > MAX_HEADERS:
        raise ValidationError(f"at most {MAX_HEADERS} headers")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValidationError("a header is there twice, in upper and lower case")
    if sum(map(len, (*headers, *headers.values()))) > MAX_HEADERS_CHARACTERS:
        raise ValidationError(f"at most {MAX_HEADERS_CHARACTERS} characters in all")
    wrong = {name: [fault] for name, value in headers.items() if (fault := _fault(name, value))}
    if wrong:
        raise ValidationError(wrong)


def _fault(name: str, value: str) -> str | None:
    if len(name) > MAX_NAME_CHARACTERS or not _TOKEN.fullmatch(name):
        return f"not a header's name (RFC 9110) of up to {MAX_NAME_CHARACTERS} characters"
    if _RESERVED.fullmatch(name):
        return "this header is not the client's to set"
    if len(value) > MAX_VALUE_CHARACTERS or not _VALUE.fullmatch(value):
        return f"not up to {MAX_VALUE_CHARACTERS} visible ASCII characters, blanks between them"
    return None


@event_type(
    "webhook",
    schema=WebhookPayload,
    max_attempts=16,  # with this backoff up to eight hours: longer than most outages
    backoff=Backoff(first_ms=1_000, cap_ms=4 * 3_600_000),
    time_limit_ms=60_000,
)
async def deliver(payload: dict[str, Any], context: Context) -> dict[str, Any]:
    """Posts once. Returns `{"status_code", "duration_ms", "answer"}`; `answer` is the beginning of
    the answer's body, on one line.

    Raises `Reject` where the URL is not, or no longer, allowed, or the answer is final;
    `RetryLater` where it has a Retry-After; `NotDelivered` and `NoAnswer` otherwise.
    """
    if context.is_cancelled():
        raise Cancelled
    settled = delivery()
    try:
        place = settled.outbound.target(payload["url"])
    except TargetRefused as error:
        raise Reject(f"url: {error}") from None
    content = orjson.dumps(payload.get("body"))
    headers = _headers(payload.get("headers") or {}, content, context, settled.keys)
    seconds = min(settled.timeout_seconds, context.remaining_ms() / 1000 * _SHARE_OF_TIME_LIMIT)
    answer = await settled.outbound.post(place, content, headers, seconds)
    return judged(answer, context.now())


def _headers(
    own: Mapping[str, str], content: bytes, context: Context, keys: tuple[bytes, ...]
) -> httpx.Headers:
    """The client's headers, and over them those that are not its to set."""
    import httpx

    headers = httpx.Headers(own)
    headers["content-type"] = "application/json"
    headers.update(signed(keys, context.id, int(context.now().timestamp()), content))
    if context.traceparent is not None:
        headers["traceparent"] = context.traceparent
    return headers


def judged(answer: Reply, now: datetime) -> dict[str, Any]:
    """The handler's result, or the error that says what becomes of the job."""
    if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
        return {
            "status_code": answer.status,
            "duration_ms": answer.duration_ms,
            "answer": answer.text,
        }
    message = f"the receiver answered {answer.status}" + (answer.text and f": {answer.text}")
    if answer.status == HTTPStatus.GONE:
        raise Reject(message)
    from service.outbound.reply import retry_after_seconds

    wait = retry_after_seconds(answer.headers, now)
    if wait is not None:
        raise RetryLater(message, _spread_ms(wait))
    raise NotDelivered(message)


def _spread_ms(seconds: float) -> int:
    """The wait within bounds, in milliseconds, and up to a tenth more: all who were told the same
    date must not come back at the same instant."""
    bounded = max(seconds, _SHORTEST_RETRY_AFTER_SECONDS) * random.uniform(1, 1.1)
    return int(min(bounded, LONGEST_RETRY_AFTER_SECONDS) * 1000)
