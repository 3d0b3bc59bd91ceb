"""A contestant's web, as a client sees it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager

from infra.bench import load
from infra.bench.documents import Jobs
from infra.bench.processes import BenchError

_BATCH = 1_000


class OverHttp:
    """Asks and posts, by connections that are made when they are wanted."""

    def __init__(self, port: int) -> None:
        self._port = port

    def is_healthy(self) -> bool:
        try:
            return self.request("GET", "/health")[0] == 200
        except OSError:
            return False

    def request(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        with self.connection() as connection:
            return ask(connection, method, path, body)

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()

    def post_many(self, count: int, event: str = load.EVENT) -> None:
        """The same event so often, by batches."""
        self.post_all([event] * count)

    def post_all(self, events: list[str]) -> None:
        """These events (as JSON), by batches."""
        with self.connection() as connection:
            for begin in range(0, len(events), _BATCH):
                body = batch_of(events[begin : begin + _BATCH])
                status, answer = ask(connection, "POST", "/events/batch", body)
                if status != 202:
                    raise BenchError(f"POST /events/batch: {status} {answer[:300]!r}")

    def post_for(self, seconds: float, jobs: Jobs, most: int, event: str = load.EVENT) -> None:
        """Events one by one, as fast as they are taken, until there are so many jobs or for so
        long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and jobs.count() < most:
            load.Load(self._port, 64, 1, body=event).finish()


def batch_of(events: list[str]) -> str:
    """The body of a batch of these events (as JSON)."""
    return f'{{"events":[{",".join(events)}]}}'


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None
) -> tuple[int, bytes]:
    """One request on a kept-alive connection: status and body."""
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(method, path, body and body.encode(), headers)
    answer = connection.getresponse()
    return answer.status, answer.read()
