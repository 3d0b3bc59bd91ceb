"""`webhook` against a real receiver on loopback, on both kinds of event loop."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import uvloop
from standardwebhooks import Webhook

from actors import webhook
from service.errors import Cancelled, Reject, RetryLater
from service.outbound.hosts import allowed_hosts
from service.outbound.network import AddressRefused, GuardedBackend, Redirected
from service.outbound.sender import NoAnswer, Outbound
from service.outbound.signing import secrets
from tests.network import Detour

NEW, OLD = "whsec_" + "bmV3" * 8, "whsec_" + "b2xk" * 8
PUBLIC = "93.184.215.14"
TRUSTING_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Quick to make, unlike one that trusts all public authorities."""
CERTIFICATE = Path(__file__).parent / "tls" / "receiver.test.pem"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Attempt:
    """The `Context` of a run."""

    id: str = "018f0000-0000-7000-8000-000000000001"
    attempt: int = 1
    request_id: str | None = None
    traceparent: str | None = TRACE
    left_ms: int = 60_000
    cancelled: bool = False
    skew_seconds: float = 0
    """How far the server's clock is ahead of this host's."""

    def is_cancelled(self) -> bool:
        return self.cancelled

    def remaining_ms(self) -> int:
        return self.left_ms

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.skew_seconds)

    def progress(self, value: Any) -> None:
        raise AssertionError(value)


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    content: bytes


Reply = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """Answers each request by the next of its replies, the last one again and again."""

    replies: list[Reply]
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/in?a=b"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                await reply(request, writer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.open -= 1


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    line, *rest = head.decode().rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (r.partition(":") for r in rest)}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(line, headers, content)


def answers(status: int, text: bytes = b"", *headers: str) -> Reply:
    async def reply(_request: Request, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(text)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + text)

    return reply


def writes(raw: bytes, *, close: bool = False) -> Reply:
    async def reply(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        if close:
            writer.close()

    return reply


async def hangs(_request: Request, _writer: asyncio.StreamWriter) -> None:
    """Keeps the connection, and says nothing on it."""


class Flood:
    """Sends without end, as fast as it is read."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, _request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await writer.drain()
            self.sent += 65_536


def trickles(beginning: bytes) -> Reply:
    """Sends the next byte before any read would time out, and never ends."""

    async def reply(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    return reply


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for happens on a socket
            await asyncio.sleep(0.005)


Receiving = Callable[..., AbstractAsyncContextManager[Receiver]]
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def receiving(monkeypatch: pytest.MonkeyPatch) -> Receiving:
    """A receiver, and deliveries set so that they may reach it."""

    @asynccontextmanager
    async def receive(
        *replies: Reply,
        keys: str = "",
        seconds: float = 5.0,
        over_tls: bool = False,
        **options: Any,
    ) -> AsyncIterator[Receiver]:
        made = Receiver(list(replies))
        tls = server_tls() if over_tls else None
        server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
        made.port = server.sockets[0].getsockname()[1]
        names = ("127.0.0.1", "receiver.test", "other.test")
        allowed = allowed_hosts(",".join(f"{name}:{made.port}" for name in names))
        usual = {"allow_private": True, "tls": TRUSTING_NOBODY}
        outbound = Outbound(allowed, **{**usual, **options})
        settled = webhook.Delivery(outbound, secrets(keys), seconds)
        monkeypatch.setattr(webhook, "delivery", lambda: settled)
        try:
            yield made
        finally:
            server.close()
            await until(lambda: made.open == 0)

    return receive


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def call(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main)

    return call


async def deliver(
    url: str, body: Any = None, headers: dict[str, str] | None = None, **context: Any
) -> dict[str, Any]:
    payload = {"url": url, "body": body, "headers": headers or {}}
    result: dict[str, Any] = await webhook.deliver(payload, Attempt(**context))
    return result


def test_it_posts_the_body_as_json_with_its_headers(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(201, b"thank\r\nyou")) as there:
            body = {"ä": [1, None, {"$x.y": "\u2028"}], "big": 2**63 - 1}
            result = await deliver(there.url, body, {"X-Tenant": "7", "User-Agent": "me"})
            assert result["status_code"] == 201
            assert result["answer"] == "thank you"
            assert 0 <= result["duration_ms"] < 5_000
            (request,) = there.requests
            assert request.line == "POST /in?a=b HTTP/1.1"
            assert json.loads(request.content) == body
            wanted = {
                "host": f"127.0.0.1:{there.port}",
                "content-type": "application/json",
                "x-tenant": "7",
                "user-agent": "me",
                "traceparent": TRACE,
                "accept-encoding": "identity",
            }
            assert wanted.items() <= request.headers.items()
            assert "webhook-signature" not in request.headers

    run(main())


def test_without_a_body_it_posts_null(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(204)) as there:
            await webhook.deliver({"url": there.url}, Attempt(traceparent=None))
            assert there.requests[0].content == b"null"
            assert "traceparent" not in there.requests[0].headers

    run(main())


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_a_receiver_can_verify_with_either_secret(
    run: Run, receiving: Receiving, secret: str
) -> None:
    async def main() -> None:
        async with receiving(answers(200), keys=f"{NEW},{OLD}") as there:
            await deliver(there.url, {"a": "ü"})
            request = there.requests[0]
            assert Webhook(secret).verify(request.content, request.headers) == {"a": "ü"}

    run(main())


def test_attempts_share_their_id_and_nothing_older(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(500, b"ouch"), answers(200), keys=NEW) as there:
            with pytest.raises(webhook.NotDelivered, match="answered 500: ouch"):
                await deliver(there.url, [1], attempt=1)
            await deliver(there.url, [1], attempt=2)
            first, second = there.requests
            assert first.headers["webhook-id"] == second.headers["webhook-id"] == Attempt.id
            assert first.content == second.content
            for request in there.requests:
                assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 10
                Webhook(NEW).verify(request.content, request.headers)

    run(main())


def test_the_time_stamp_is_the_servers(run: Run, receiving: Receiving) -> None:
    """A receiver refuses what is five minutes off."""

    async def main() -> None:
        async with receiving(answers(200), keys=NEW) as there:
            await deliver(there.url, [1], skew_seconds=3_600)
            (request,) = there.requests
            server_time = time.time() + 3_600
            assert abs(int(request.headers["webhook-timestamp"]) - server_time) < 10

    run(main())


def test_410_is_final(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(410)) as there:
            with pytest.raises(Reject, match="410"):
                await deliver(there.url)

    run(main())


@pytest.mark.parametrize("as_date", [False, True])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(
    run: Run, receiving: Receiving, status: int, as_date: bool
) -> None:
    value = formatdate(time.time() + 60, usegmt=True) if as_date else "60"

    async def main() -> None:
        async with receiving(answers(status, b"", f"Retry-After: {value}")) as there:
            with pytest.raises(RetryLater) as error:
                await deliver(there.url)
            assert 55_000 < error.value.delay_ms <= 66_000

    run(main())


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirects_are_final_and_not_followed(run: Run, receiving: Receiving, status: int) -> None:
    async def main() -> None:
        async with receiving(answers(200)) as inner:
            reply = answers(status, b"", f"Location: {inner.url}")
            async with receiving(reply) as there:
                with pytest.raises(Redirected, match=f"{status}.*{inner.port}") as error:
                    await deliver(there.url)
                assert isinstance(error.value, Reject)
            assert inner.requests == []

    run(main())


@pytest.mark.parametrize("location", ["http://169.254.169.254/", "http://[", "file:///etc/passwd"])
def test_no_location_is_even_read(run: Run, receiving: Receiving, location: str) -> None:
    async def main() -> None:
        async with receiving(answers(302, b"", f"Location: {location}")) as there:
            with pytest.raises(Redirected):
                await deliver(there.url)

    run(main())


@pytest.mark.parametrize("reply", [hangs, trickles(b"HTTP/1.1 200 OK\r\nX: ")])
def test_a_receiver_too_slow_is_left(run: Run, receiving: Receiving, reply: Reply) -> None:
    async def main() -> None:
        async with receiving(reply, seconds=0.2) as there:
            started = time.monotonic()
            with pytest.raises(NoAnswer, match=r"no answer within 0\.2 s"):
                await deliver(there.url)
            assert time.monotonic() - started < 2
            await until(lambda: there.open == 0)

    run(main())


def test_the_time_limit_bounds_the_wait(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(hangs, seconds=30) as there:
            started = time.monotonic()
            with pytest.raises(NoAnswer):
                await deliver(there.url, left_ms=300)
            assert time.monotonic() - started < 2

    run(main())


def test_connections_of_timed_out_deliveries_are_free_again(run: Run, receiving: Receiving) -> None:
    async def hangs_if_asked(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.content != b'"hang"':
            await answers(200)(request, writer)

    async def main() -> None:
        async with receiving(hangs_if_asked, max_connections=3) as there:
            for _ in range(4):
                tries = [deliver(there.url, "hang", left_ms=200) for _ in range(3)]
                ends = await asyncio.gather(*tries, return_exceptions=True)
                assert [type(end) for end in ends] == [NoAnswer] * 3
            assert (await deliver(there.url))["status_code"] == 200

    run(main())


def test_a_run_cancelled_from_outside_ends_at_once(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(hangs) as there:
            task = asyncio.create_task(deliver(there.url))
            await until(lambda: len(there.requests) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: there.open == 0)

    run(main())


def test_a_cancelled_event_is_not_sent(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(200)) as there:
            with pytest.raises(Cancelled):
                await deliver(there.url, cancelled=True)
            assert there.connections == 0

    run(main())


def test_an_endless_answer_is_cut(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        flood = Flood()
        async with receiving(flood) as there:
            result = await deliver(there.url)
            assert result["answer"] == "x" * 500
            await until(lambda: there.open == 0)
            assert flood.sent < 64 * 1_048_576, "no more than what buffers take"

    run(main())


@pytest.mark.parametrize("body", [writes, trickles])
def test_a_body_that_never_ends_does_not_undo_a_delivery(
    run: Run, receiving: Receiving, body: Callable[[bytes], Reply]
) -> None:
    async def main() -> None:
        reply = body(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nhalf")
        async with receiving(reply, seconds=0.8) as there:
            started = time.monotonic()
            assert (await deliver(there.url))["answer"].startswith("half")
            assert time.monotonic() - started < 4

    run(main())


@pytest.mark.parametrize(
    "reply",
    [
        answers(302, b"x" * 9_999, "Location: /"),
        answers(200, b"x" * 9_999, "Content-Encoding: br"),
        answers(500, b"x" * 9_999),
    ],
)
def test_unread_answers_hold_no_connection(run: Run, receiving: Receiving, reply: Reply) -> None:
    async def main() -> None:
        async with receiving(reply, max_connections=1) as there:
            for _ in range(3):
                with suppress(Reject, webhook.NotDelivered):
                    await deliver(there.url)
            assert len(there.requests) == 3

    run(main())


def test_a_compressed_answer_is_never_unpacked(run: Run, receiving: Receiving) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def main() -> None:
        async with receiving(answers(200, bomb, "Content-Encoding: gzip")) as there:
            assert (await deliver(there.url))["answer"] == ""

    run(main())


@pytest.mark.parametrize(
    "reply",
    [
        writes(b"", close=True),
        writes(b"SSH-2.0-OpenSSH_9.6\r\n", close=True),
        writes(b"HTTP/1.1 200 OK\r\nContent-Le", close=True),
        writes(b"HTTP/1.1 abc\r\n\r\n"),
        writes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"),
        writes(b"HTTP/1.1 100 Continue\r\n\r\n" * 3, close=True),
    ],
)
def test_what_is_no_answer_is_tried_again(run: Run, receiving: Receiving, reply: Reply) -> None:
    async def main() -> None:
        async with receiving(reply) as there:
            with pytest.raises(NoAnswer, match=str(there.port)):
                await deliver(there.url)

    run(main())


def test_nobody_listening_is_tried_again(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(200)) as there:
            pass
        with pytest.raises(NoAnswer, match="connection"):
            await deliver(there.url)

    run(main())


def test_cookies_do_not_pass_from_one_event_to_the_next(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(200, b"", "Set-Cookie: a=b; Path=/")) as there:
            await deliver(there.url)
            await deliver(there.url)
            await deliver(there.url, headers={"Cookie": "own=1"})
            cookies = [request.headers.get("cookie") for request in there.requests]
            assert cookies == [None, None, "own=1"]

    run(main())


def test_each_delivery_has_a_connection_of_its_own(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(200, b"ok")) as there:
            for _ in range(3):
                await deliver(there.url)
            assert (len(there.requests), there.connections) == (3, 3)
            assert there.requests[0].headers["connection"] == "close"

    run(main())


def test_deliveries_beyond_the_limit_wait_and_say_so(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(hangs, max_connections=1) as there:
            first = asyncio.create_task(deliver(there.url))
            await until(lambda: len(there.requests) == 1)
            with pytest.raises(NoAnswer, match="not sent, all 1 connections were busy"):
                await deliver(there.url, left_ms=200)
            assert there.connections == 1
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first

    run(main())


def test_a_handshake_that_never_ends_leaves_nothing_open(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(hangs, seconds=0.2) as there:
            tls_to_what_speaks_none = there.url.replace("http:", "https:")
            with pytest.raises(NoAnswer, match="no answer within"):
                await deliver(tls_to_what_speaks_none)
            assert there.connections == 1
            await until(lambda: there.open == 0)

    run(main())


def test_the_environments_proxies_and_netrc_are_not_used(
    run: Run, receiving: Receiving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))

    async def main() -> None:
        async with receiving(answers(200)) as proxy:
            for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            async with receiving(answers(200)) as there:
                await deliver(there.url)
                assert "authorization" not in there.requests[0].headers
            assert proxy.requests == []

    run(main())


def test_a_host_no_longer_allowed_is_final(run: Run, receiving: Receiving) -> None:
    async def main() -> None:
        async with receiving(answers(200)) as there:
            with pytest.raises(Reject, match="url: this host and port"):
                await deliver(there.url.replace("127.0.0.1", "127.0.0.2"))
            assert there.connections == 0

    run(main())


def test_without_the_setting_the_receiver_on_loopback_is_out_of_reach(
    run: Run, receiving: Receiving
) -> None:
    async def loopback(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    async def main() -> None:
        backend = GuardedBackend(loopback)
        async with receiving(answers(200), backend=backend, allow_private=False) as there:
            with pytest.raises(Reject, match="this address is not public"):
                await deliver(there.url)
            with pytest.raises(AddressRefused):
                await deliver(there.url.replace("127.0.0.1", "receiver.test"))
            assert there.connections == 0

    run(main())


# TLS: connected to the address that was checked, by the name that was asked for


async def public(_host: str, _port: int) -> list[str]:
    return [PUBLIC]


def test_tls_asks_for_and_checks_the_name_not_the_address(run: Run, receiving: Receiving) -> None:
    detour, trusting = Detour(), ssl.create_default_context(cafile=str(CERTIFICATE))
    options: dict[str, Any] = {
        "over_tls": True,
        "allow_private": False,
        "backend": GuardedBackend(public, inner=detour),
    }

    async def main() -> None:
        async with receiving(answers(200, b"hi"), **options, tls=trusting) as there:
            url = f"https://receiver.test:{there.port}/"
            assert (await deliver(url))["answer"] == "hi"
            assert there.requests[0].headers["host"] == f"receiver.test:{there.port}"
            with pytest.raises(NoAnswer, match=r"CERTIFICATE_VERIFY_FAILED.*other\.test"):
                await deliver(url.replace("receiver.test", "other.test"))
        async with receiving(answers(200), **options, tls=None) as there:
            with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
                await deliver(f"https://receiver.test:{there.port}/")
            assert there.requests == []

    run(main())
    assert set(detour.wanted) == {PUBLIC}


def test_the_environment_may_name_an_authority_of_ones_own(
    run: Run, receiving: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    backend = GuardedBackend(public, inner=Detour())

    async def main() -> None:
        async with receiving(answers(200), over_tls=True, backend=backend, tls=None) as there:
            await deliver(f"https://receiver.test:{there.port}/")

    run(main())
