"""What an answer means for the job, and which headers a client may send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.webhook import NotDelivered, WebhookPayload, judged
from service.errors import Reject, RetryLater
from service.outbound.reply import Reply, clean, retry_after_seconds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def answer(status: int, text: str = "", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, httpx.Headers(named), 12, text)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_delivered(status: int) -> None:
    result = {"status_code": status, "duration_ms": 12, "answer": "ok"}
    assert judged(answer(status, "ok"), NOW) == result


def test_410_is_final_even_with_retry_after() -> None:
    with pytest.raises(Reject, match="answered 410: gone for good"):
        judged(answer(410, "gone for good", retry_after="1"), NOW)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 422, 429, 500, 502, 503, 504])
def test_other_failures_are_tried_again_by_backoff(status: int) -> None:
    with pytest.raises(NotDelivered, match=f"answered {status}$"):
        judged(answer(status), NOW)


@pytest.mark.parametrize("status", [413, 429, 500, 503])
def test_with_retry_after_they_are_tried_again_then(status: int) -> None:
    with pytest.raises(RetryLater) as error:
        judged(answer(status, retry_after="120"), NOW)
    assert 120_000 <= error.value.delay_ms <= 132_000


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("0", 1_000, 1_100),
        ("99999999999999999999", 3_600_000, 3_600_000),
        ("3599", 3_599_000, 3_600_000),
    ],
)
def test_retry_after_is_kept_within_bounds(text: str, low: int, high: int) -> None:
    with pytest.raises(RetryLater) as error:
        judged(answer(503, retry_after=text), NOW)
    assert low <= error.value.delay_ms <= high


@pytest.mark.parametrize(
    "date",
    ["Fri, 02 Jan 2026 03:05:05 GMT", "Friday, 02-Jan-26 03:05:05 GMT", "Fri Jan  2 03:05:05 2026"],
)
def test_retry_after_may_be_a_date_in_each_of_its_three_forms(date: str) -> None:
    assert retry_after_seconds(httpx.Headers({"retry-after": date}), NOW) == 60


def test_a_date_counts_from_the_answers_own_date() -> None:
    headers = {
        "retry-after": "Fri, 02 Jan 2026 09:00:30 GMT",
        "date": "Fri, 02 Jan 2026 09:00:00 GMT",
    }
    assert retry_after_seconds(httpx.Headers(headers), NOW) == 30


def test_a_date_that_has_passed_is_now() -> None:
    headers = httpx.Headers({"retry-after": "Fri, 02 Jan 2015 03:05:05 GMT"})
    assert retry_after_seconds(headers, NOW) == 0


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "1.5", "+5", "\u0665", "1e3", "Fri, 99 Jan 2026"]
)
def test_what_can_not_be_read_is_no_wish(text: str) -> None:
    headers = httpx.Headers([(b"retry-after", text.encode())])
    assert retry_after_seconds(headers, NOW) is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_header_of_a_receiver_breaks_the_reading(text: str, date: str) -> None:
    raw = [
        (b"retry-after", text.encode("utf-8", "replace")),
        (b"date", date.encode("utf-8", "replace")),
    ]
    wait = retry_after_seconds(httpx.Headers(raw), NOW)
    assert wait is None or wait >= 0


@given(st.text())
def test_what_is_shown_of_an_answer_is_one_printable_line(text: str) -> None:
    assert clean(text, 40).isprintable()
    assert len(clean(text, 40)) <= 40


# headers of the client


@pytest.fixture(autouse=True)
def _any_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WebhookPayload, "_is_allowed", lambda *_, **__: None, raising=True)


def errors_of(headers: Any) -> Any:
    payload = {"url": "https://example.com/", "headers": headers}
    return WebhookPayload().validate(payload).get("headers")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer x", "X-Tenant": "7", "Cookie": "a=b; c=d", "User-Agent": "me"},
        {"X-Empty": "", "X-Tab": "a\tb", "x!#$%&'*+.^_`|~": "1"},
        {f"X-{n}": "v" for n in range(32)},
        {"X-Long": "v" * 4_096},
    ],
)
def test_headers_that_may_be_sent(headers: dict[str, str]) -> None:
    assert errors_of(headers) is None


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "host",
        "Content-Length",
        "Content-Type",
        "Content-Encoding",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Proxy-Authorization",
        "Expect",
        "Webhook-Id",
        "webhook-timestamp",
        "WEBHOOK-SIGNATURE",
        "webhook-x",
        "traceparent",
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "Accept-Encoding",
        "HTTP2-Settings",
    ],
)
def test_reserved_headers_are_refused_by_name(name: str) -> None:
    assert errors_of({name: "x"}) == {name: ["this header is not the client's to set"]}


@pytest.mark.parametrize(
    "name", ["", " X", "X ", "X:Y", "X\r\nHost", "X\x00", "Ü", "(x)", "a/b", "x" * 129, "Host\n"]
)
def test_names_that_are_none_are_refused(name: str) -> None:
    assert "not a header's name" in errors_of({name: "x"})[name][0]


@pytest.mark.parametrize(
    "value", ["a\r\nHost: b", "a\nb", "a\x00", "\x7f", "ü", " a", "a ", "a\n", "v" * 4_097]
)
def test_values_that_could_end_a_header_are_refused(value: str) -> None:
    assert "visible ASCII" in errors_of({"X-A": value})["X-A"][0]


@pytest.mark.parametrize(
    "headers",
    [
        {f"X-{n}": "v" for n in range(33)},
        {"X-A": "1", "x-a": "2"},
        {f"X-{n}": "v" * 4_000 for n in range(3)},
        {"X-A": 1},
        {"X-A": None},
        {"X-A": ["a"]},
        [],
        "a",
        None,
    ],
)
def test_bounds_and_types_of_headers(headers: Any) -> None:
    assert errors_of(headers)


def test_a_header_that_is_no_text_is_named_without_more_ado() -> None:
    assert errors_of({"X-A": 1, "X-B": "b"}) == {"X-A": ["Not a valid string."]}


@pytest.mark.parametrize("body", [None, 0, "", False, [], {}, {"$a.b": [1, {"c": None}]}])
def test_the_body_may_be_any_json_value(body: Any) -> None:
    assert WebhookPayload().load({"url": "https://example.com/", "body": body})["body"] == body


def test_unknown_fields_and_a_missing_url_are_refused() -> None:
    assert set(WebhookPayload().validate({"method": "GET"})) == {"method", "url"}


@pytest.mark.parametrize("url", [None, 1, [], {"$ne": ""}, True])
def test_a_url_that_is_no_text_is_refused(url: Any) -> None:
    assert set(WebhookPayload().validate({"url": url})) == {"url"}
