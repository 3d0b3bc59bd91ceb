"""Bodies within all bounds that cost as much as such a body can, for whoever parses it.

`python -m tests.api.hostile_bodies [WORD]` posts each of them (those with WORD in their name) to a
web process of its own while another client asks for `/health/live`, and prints a table: name, size,
status, seconds, the other client's longest wait, and the web process's memory: its peak while this
body was there, and what it has afterwards.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from infra.servers import HOST, MongoServer, RedisServer
from service.settings import Settings
from tests.api.server import Web, running_web

MEBIBYTE = 1_048_576
_NESTED = 55
"""Deep, but within the bound on nesting even inside of a batch."""


class Hostile(NamedTuple):
    """What is posted where; `count`: of how many events."""

    name: str
    path: str
    body: bytes


def filled(unit: bytes, size: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """A JSON list (or object) of so many bytes: the same member again and again."""
    return opening + b",".join([unit] * (size // (len(unit) + 1))) + closing


def many_keys(size: int) -> bytes:
    keys = (b'"%x":1' % number for number in range(size // 10))
    return b"{" + b",".join(keys) + b"}"


def long_key(size: int) -> bytes:
    """Half a key, half a list: a pointer to each member would take the product of both."""
    return b'{"' + b"k" * (size // 2) + b'\\u0041":' + filled(b"1", size // 2) + b"}"


def invalid_under_a_long_key(size: int) -> bytes:
    return b'{"' + b"k" * (size - 2_000) + b'":' + filled(b'"\\u0000"', 1_000) + b"}"


VALUES: dict[str, Callable[[int], bytes]] = {
    "a long key over a list": long_key,
    "what can't be stored under a long key": invalid_under_a_long_key,
    "integers": partial(filled, b"1"),
    "integers, one beyond 18 digits": lambda size: (
        b"[1234567890123456789," + filled(b"1", size - 30)[1:]
    ),
    "floats": partial(filled, b"1.5"),
    "floats with exponents": partial(filled, b"1e1"),
    "long floats": partial(filled, b"0." + b"1" * 1_000),
    "integers of 4,000 digits": partial(filled, b"9" * 4_000),
    "empty lists": partial(filled, b"[]"),
    "empty objects": partial(filled, b"{}"),
    "small objects": partial(filled, b'{"":0}'),
    "duplicate keys": lambda size: filled(b'"a":1', size, b"{", b"}"),
    "many keys": many_keys,
    "empty strings": partial(filled, b'""'),
    "short escapes": partial(filled, b'"\\n"'),
    "one string of escapes": lambda size: b'"' + b"\\u0041" * (size // 6) + b'"',
    "NULs": partial(filled, b'"\\u0000"'),
    "one emoji, then ASCII": lambda size: b'"' + "\U0001f600".encode() + b"a" * size + b'"',
    "deep lists": partial(filled, b"[" * _NESTED + b"]" * _NESTED),
    "deep objects": partial(filled, b'{"":' * _NESTED + b"1" + b"}" * _NESTED),
    "brackets in strings": partial(filled, b'"[[[{{{"'),
    "nulls": partial(filled, b"null"),
    "blanks": lambda size: b" " * size + b"1",
    "not closed": lambda size: b"[" * size,
    "cut": lambda size: filled(b'{"a":[1]}', size)[:-1],
}
"""JSON values of about so many bytes, and a few that are none."""


def event(value: bytes) -> bytes:
    return b'{"type":"simulate","payload":{"result":' + value + b"}}"


def batch(items: list[bytes]) -> bytes:
    return b'{"events":[' + b",".join(items) + b"]}"


def singles(size: int) -> Iterator[Hostile]:
    """Events of about `size` bytes."""
    for name, value in VALUES.items():
        yield Hostile(name, "/events", event(value(size - 100)))
    yield Hostile("unknown fields", "/events", many_keys(size - 100))
    unknown = b'{"type":"simulate","payload":' + many_keys(size - 100) + b"}"
    yield Hostile("unknown fields of a payload", "/events", unknown)
    name = b'{"type":"' + b"simulate" * (size // 9) + b'","payload":{}}'
    yield Hostile("a long name of a type", "/events", name)


def batches(size: int) -> Iterator[Hostile]:
    """Batches of about `size` bytes: of large events, of many small ones, and of none."""
    path = "/events/batch"
    largest = min(size // 16, MEBIBYTE) - 200
    for name, value in VALUES.items():
        yield Hostile(f"{name}, 16 events", path, batch([event(value(largest))] * 16))
        smallest = max(size // 1_000 - 100, 1)
        yield Hostile(f"{name}, 1,000 events", path, batch([event(value(smallest))] * 1_000))
    for name in ("integers", "empty lists", "deep lists", "one string of escapes", "not closed"):
        whole = VALUES[name](size - 200)
        yield Hostile(f"{name}, one event", path, batch([event(whole)]))
        yield Hostile(f"{name}, no events", path, b'{"events":' + whole + b"}")
        yield Hostile(f"{name}, not even a batch", path, whole)
    yield Hostile("unknown fields, 16 events", path, batch([many_keys(largest)] * 16))
    small = b'{"x":1,"type":1,' + b",".join(b'"%d":0' % n for n in range(size // 9_500)) + b"}"
    yield Hostile("unknown fields, 1,000 events", path, batch([small] * 1_000))
    yield Hostile("a thousand numbers", path, batch([b"1"] * 1_000))


class Other(threading.Thread):
    """Another client, which asks for `/health/live` again and again."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._connection = http.client.HTTPConnection(HOST, port, timeout=60)
        self._over = threading.Event()
        self.longest_seconds = 0.0

    def run(self) -> None:
        while not self._over.wait(0.002):
            began = time.perf_counter()
            while not self._is_answered() and not self._over.wait(0.05):
                self._connection.close()
            self.longest_seconds = max(self.longest_seconds, time.perf_counter() - began)
        self._connection.close()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _is_answered(self) -> bool:
        try:
            self._connection.request("GET", "/health/live")
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200


@contextmanager
def another_client(port: int) -> Iterator[Other]:
    """Its `longest_seconds` afterwards: how long it had to wait for one answer."""
    other = Other(port)
    other.start()
    time.sleep(0.02)
    try:
        yield other
    finally:
        other.stop()


def post(port: int, hostile: Hostile, method: str = "POST") -> tuple[int, bytes]:
    """Status and body of the answer; 0 where the server died of it."""
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    headers = {"Content-Type": "application/json"} if method == "POST" else {}
    try:
        connection.request(method, hostile.path, hostile.body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class Memory:
    """Of one process, in MiB."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def forget_peak(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def of(self, name: str) -> int:
        """`VmRSS` or `VmHWM`."""
        lines = (self._folder / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) // 1_024


def measure(web: Web, hostile: Hostile, method: str = "POST") -> tuple[str, bytes]:
    """A line of the table, and the answer."""
    memory = Memory(web.pids()[-1])
    memory.forget_peak()
    with another_client(web.port) as other:
        began = time.perf_counter()
        status, content = post(web.port, hostile, method)
        seconds = time.perf_counter() - began
    if not status:
        web.wait_ready()
        memory = Memory(web.pids()[-1])
    line = (
        f"{hostile.name[:48]:48} {len(hostile.body) / MEBIBYTE:7.2f} {status:4} {seconds:8.3f} "
        f"{other.longest_seconds * 1_000:8.0f} {memory.of('VmHWM'):5} {memory.of('VmRSS'):5} "
        f"{len(content) / MEBIBYTE:7.2f}"
    )
    return line, content


HEAD = f"{'name':48} {'MiB':>7} {'code':>4} {'s':>8} {'wait ms':>8} {'peak':>5} {'RSS':>5}  answer"


def look(web: Web, hostile: Hostile, content: bytes) -> None:
    """Reads a large event back, alone and as a page."""
    event_id = json.loads(content)["id"]
    path = f"/events/{event_id}"
    print(measure(web, Hostile(f"  GET {hostile.name}", path, b""), "GET")[0], flush=True)
    page = Hostile(f"  GET a page, {hostile.name} first", "/events?limit=200", b"")
    print(measure(web, page, "GET")[0], flush=True)


def main(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("redis", "mongo"):
            (place / name).mkdir()
        with RedisServer(place / "redis") as redis, MongoServer(place / "mongo") as mongo:
            settings = replace(Settings(), redis_url=redis.url, mongodb_uri=mongo.url_of("hostile"))
            with running_web(place / "log", settings) as web:
                _table(web, words)


def _table(web: Web, words: list[str]) -> None:
    print(HEAD)
    for title, size, made in (
        ("small events", 65_000, singles),
        ("large events", MEBIBYTE, singles),
        ("small batches", 60_000, batches),
        ("large batches", 16 * MEBIBYTE, batches),
    ):
        if words and title not in words and title.split()[1] not in words:
            continue
        print(f"-- {title}")
        for hostile in made(size):
            line, content = measure(web, hostile)
            print(line, flush=True)
            if title == "large events" and b'"status":"pending"' in content:
                look(web, hostile, content)


if __name__ == "__main__":
    main(sys.argv[1:])
