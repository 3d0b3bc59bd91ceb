"""Below HTTP's surface: slow, silent and many connections, and what the server refuses itself."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from infra.servers import HOST
from service.settings import Settings
from tests.api.server import Web, running_web

GET = b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n"


def connect(web: Web) -> socket.socket:
    return socket.create_connection((HOST, web.port), timeout=20)


def received(connection: socket.socket) -> bytes:
    """All until the server closes."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 9_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Many: x\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_what_the_server_refuses_is_a_problem_too(web: Web, raw: bytes, status: int) -> None:
    with connect(web) as connection:
        connection.sendall(raw)
        head, _, body = received(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"application/problem+json" in head
    assert json.loads(body)["status"] == status


def test_requests_can_be_pipelined(web: Web) -> None:
    with connect(web) as connection:
        connection.sendall(GET * 3)
        seen = b""
        while seen.count(b'{"status":"ok"}') < 3:
            part = connection.recv(65_536)
            assert part
            seen += part


def test_a_refused_body_is_not_taken_for_a_request(web: Web) -> None:
    """The bytes of a body that nobody read must not begin the next request."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(web) as connection:
        connection.sendall(
            b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + hidden
        )
        answer = received(connection)
    assert answer.count(b"HTTP/1.1") == 1
    assert b" 413 " in answer


def test_a_client_that_waits_for_100_gets_it(web: Web) -> None:
    body = b'{"type":"simulate","payload":{}}'
    head = (
        b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with connect(web) as connection:
        connection.sendall(head)
        assert connection.recv(1_000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(1_000).startswith(b"HTTP/1.1 202 ")


def test_a_client_that_waits_for_100_learns_first_that_it_is_too_much(web: Web) -> None:
    head = (
        b"POST /events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n"
    )
    with connect(web) as connection:
        connection.sendall(head + b"\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 413 ")


def test_a_body_byte_by_byte_has_a_deadline_all_the_same(web: Web) -> None:
    with connect(web) as connection:
        head = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection.sendall(head + b"Content-Length: 10000\r\n\r\n")
        connection.settimeout(0.1)
        began = time.monotonic()
        answer = b""
        while not answer:
            connection.sendall(b" ")
            try:
                answer = connection.recv(1_000)
            except TimeoutError:
                assert time.monotonic() - began < 5
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 0.9 < time.monotonic() - began < 3  # BODY_TIMEOUT_SECONDS is 1 here


@pytest.fixture
def patient_web(tmp_path: Path, web_settings: Settings) -> Iterator[Web]:
    with running_web(tmp_path / "web.log", web_settings) as web:
        yield web


def test_half_a_header_does_not_hold_a_connection_for_ever(web: Web) -> None:
    with connect(web) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
        began = time.monotonic()
        assert received(connection).startswith(b"HTTP/1.1 408 ")
    assert 0.9 < time.monotonic() - began < 3


def test_a_thousand_idle_connections_stop_nobody(patient_web: Web) -> None:
    with ExitStack() as stack:
        for number in range(1_000):
            connection = stack.enter_context(connect(patient_web))
            if number % 2:
                connection.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        times = sorted(patient_web.post().elapsed.total_seconds() for _ in range(50))
        assert times[-1] < 0.5
    assert patient_web.post().status_code == 202


def test_a_large_request_right_after_an_answer_is_answered_too(web: Web) -> None:
    """gunicorn closes the connection over what comes before it is done with the last request."""
    event = {"type": "simulate", "payload": {"result": "x" * 500_000}}
    for _ in range(60):
        assert web.get("01932f4c-7a1e-7c3d-9b52-0d6f3a8e41b7").status_code == 404
        assert web.send(b"x" * 1_100_000).status_code == 413
        assert web.get("01932f4c-7a1e-7c3d-9b52-0d6f3a8e41b7").status_code == 404
        assert web.post(event).status_code == 202
