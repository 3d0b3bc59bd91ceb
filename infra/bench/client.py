"""Posts over kept-alive connections, as fast as the answers come or at a steady rate.

A process of its own, so that it shares no time with who measures: `python -m infra.bench.client
TASK` takes its task as JSON and prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_PATIENCE_SECONDS = 30.0  # for the last answers


@dataclass(frozen=True, slots=True)
class Task:
    """`rate`: posts a second whatever the answers take; 0: each connection as fast as it can."""

    port: int
    path: str
    body: str
    connections: int
    seconds: float
    rate: float = 0.0

    def request(self) -> bytes:
        body = self.body.encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(slots=True)
class Answers:
    """How many came, how long they took, and how many were bad."""

    requests: int = 0
    errors: int = 0
    seconds: float = 0.0
    """From the first request to the last answer."""
    microseconds: Counter[int] = field(default_factory=Counter)

    def add(self, good: bool, seconds: float) -> None:
        self.requests += 1
        self.errors += not good
        self.microseconds[_three_digits(seconds * 1e6)] += 1

    def merge(self, other: Answers) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.seconds = max(self.seconds, other.seconds)
        self.microseconds += other.microseconds


class Connection(asyncio.Protocol):
    """Sends one request at a time; `on_answer(connection)` may send the next."""

    def __init__(
        self, request: bytes, answers: Answers, on_answer: Callable[[Connection], None]
    ) -> None:
        self._request, self._answers, self._on_answer = request, answers, on_answer
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._sent_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @property
    def waiting(self) -> bool:
        return self._sent_at is not None

    def send(self) -> None:
        if self._transport is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(self._request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or self._sent_at is None or not _is_whole(head, body):
            return
        self._answers.add(head[9:10] == b"2", time.perf_counter() - self._sent_at)
        self._received, self._sent_at = b"", None
        self._on_answer(self)

    def connection_lost(self, _error: Exception | None) -> None:
        if self.waiting:
            self._answers.errors += 1
        self._transport = self._sent_at = None


def _is_whole(head: bytes, body: bytes) -> bool:
    if length := _LENGTH.search(head):
        return len(body) >= int(length[1])
    return not _CHUNKED.search(head) or body.endswith(_LAST_CHUNK)


def _three_digits(value: float) -> int:
    """Rounded to three significant digits, so that a histogram of it stays small."""
    digits = max(0, len(str(int(value))) - 3)
    return int(round(value, -digits))


async def as_fast_as_it_can(task: Task) -> Answers:
    """Each connection sends its next request when it has its answer."""
    answers = Answers()

    def again(connection: Connection) -> None:
        answers.seconds = time.perf_counter() - begin
        if answers.seconds < task.seconds:
            connection.send()

    opened = [await _open(task, answers, again) for _ in range(task.connections)]
    begin = time.perf_counter()
    for connection in opened:
        connection.send()
    await asyncio.sleep(task.seconds)
    await _close(opened)
    return answers


async def steadily(task: Task) -> Answers:
    """Sends at the rate, on an idle connection or else a new one."""
    answers = Answers()
    idle: list[Connection] = []
    opened = [await _open(task, answers, idle.append) for _ in range(task.connections)]
    idle += opened
    begin = time.perf_counter()
    for number in range(round(task.rate * task.seconds)):
        await asyncio.sleep(max(0.0, begin + number / task.rate - time.perf_counter()))
        if not idle:
            opened.append(await _open(task, answers, idle.append))
            idle.append(opened[-1])
        idle.pop(0).send()
    await _close(opened)
    return answers


async def _open(
    task: Task, answers: Answers, on_answer: Callable[[Connection], None]
) -> Connection:
    loop, request = asyncio.get_running_loop(), task.request()
    _, connection = await loop.create_connection(
        lambda: Connection(request, answers, on_answer), "127.0.0.1", task.port
    )
    return connection


async def _close(opened: list[Connection]) -> None:
    """After the last answers."""
    end = time.perf_counter() + _PATIENCE_SECONDS
    while any(c.waiting for c in opened) and time.perf_counter() < end:  # noqa: ASYNC110  a client
        await asyncio.sleep(0.01)
    for connection in opened:
        connection.close()
    await asyncio.sleep(0)


def carry_out(task: Task) -> Answers:
    drive = steadily if task.rate else as_fast_as_it_can
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(drive(task))


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    # One process posts faster than two cores can serve; with more cores it would be the limit.
    processes = 1 if task.rate else max(1, min(4, (os.cpu_count() or 1) // 4, task.connections))
    answers = Answers()
    if processes == 1:
        answers = carry_out(task)
    else:
        shares = [len(range(i, task.connections, processes)) for i in range(processes)]
        with ProcessPoolExecutor(processes) as pool:
            for part in pool.map(carry_out, [replace(task, connections=n) for n in shares]):
                answers.merge(part)
    json.dump({name: getattr(answers, name) for name in Answers.__slots__}, sys.stdout)


if __name__ == "__main__":
    main()
