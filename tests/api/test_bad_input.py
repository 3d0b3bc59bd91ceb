"""Every request of the table is refused as it says, within a second, and nothing is stored.

The table, with what was answered: `pytest tests/api/test_bad_input.py -rP -k table`
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo.database import Database

from infra.servers import HOST
from tests.api.bad_input import Case, cases
from tests.api.server import Web

CASES = cases()
LONGEST_SECONDS = 1.0
BODY_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


@pytest.fixture(scope="module")
def rows() -> list[str]:
    """The table's rows, as far as it has come."""
    return []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name[:60])
def test_it_is_refused(web: Web, database: Database[Any], case: Case, rows: list[str]) -> None:
    answer = _answer(web, case)
    problem = json.loads(answer.body)
    pointers = [error["pointer"] for error in problem.get("errors", [])]
    rows.append(f"| {case.name[:60]} | {answer.status} | {' '.join(pointers)[:60]} |")
    assert answer.status == case.status, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == case.status
    assert problem.keys() >= {"type", "title", "status", "detail", "request_id"}
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (case.pointer in pointers) if case.pointer is not None else not pointers
    assert answer.seconds < LONGEST_SECONDS + (BODY_TIMEOUT_SECONDS if case.status == 408 else 0)
    assert database["jobs"].count_documents({}) == 0
    assert (answer.status == 405) == ("allow" in answer.headers)


def test_the_table(rows: list[str]) -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 100
    print("\n| case | status | pointers |\n| --- | --- | --- |")
    print("\n".join(rows))
    print(f"{len(rows)} cases")


def _answer(web: Web, case: Case) -> Answer:
    began = time.monotonic()
    with socket.create_connection((HOST, web.port), timeout=5) as connection:
        connection.sendall(case.raw if case.raw is not None else _bytes(case))
        received = _read(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.split(": ", 1) for line in lines)
    headers = {name.lower(): value for name, value in pairs}
    return Answer(int(first.split(" ")[1]), headers, body, time.monotonic() - began)


def _bytes(case: Case) -> bytes:
    """The request as a client writes it; no library would send some of these."""
    headers = {"Host": "test", **case.headers}
    if case.body is not None:
        headers["Content-Length"] = str(len(case.body))
    lines = [f"{case.method} {case.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (case.body or b"")


def _read(connection: socket.socket) -> bytes:
    """One answer, whose length it says itself."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _more(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = (
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += _more(connection)
    return head + b"\r\n\r\n" + body


def _more(connection: socket.socket) -> bytes:
    received = connection.recv(65_536)
    assert received, "the connection was closed without an answer"
    return received
