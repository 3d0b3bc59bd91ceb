"""Reads a request's body: bounded in size, in time, and in what all of them take together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Event = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Event]]
MOST_HELD_BYTES = 268_435_456
"""How much memory the bodies of all requests may take together, per process."""
_DRAIN_BYTES, _DRAIN_SECONDS = 33_554_432, 2.0


class Refused(Exception):
    """The request ends here, with this status."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Bodies:
    """`read` for the event loop. A client that never sends its body holds its connection and
    nothing else."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self.held_bytes = 0

    async def read(self, declared: int | None, most: int, receive: Receive) -> bytes:
        """All of it; `declared`: its size by the headers, None: it comes in chunks.

        Raises `Refused`: 408, 413, 503.
        """
        if declared is not None and declared > most:
            raise Refused(413, f"the body has {declared} bytes, and {most} are allowed")
        coroutine = receive()
        try:
            waits_for = coroutine.send(None)
        except StopIteration as arrived:  # it was there: no timer is needed
            event: Event = arrived.value
            if event["type"] == "http.request" and not event.get("more_body", False):
                body: bytes = event.get("body", b"")
                return body if len(body) <= most else _too_large(most)
            first = _answered(event)
        else:
            first = _resumed(coroutine, waits_for)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._gather(first, most, receive)
        except TimeoutError:
            raise Refused(408, "the body did not arrive in time") from None

    async def _gather(
        self, coming: Coroutine[Any, Any, Event], most: int, receive: Receive
    ) -> bytes:
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                event = await coming
                if event["type"] != "http.request":  # the client has gone, or the server gave up
                    raise Refused(408, "the body did not arrive")
                chunk = event.get("body", b"")
                size += len(chunk)
                self.held_bytes += len(chunk)
                if size > most:
                    _too_large(most)
                if self.held_bytes > MOST_HELD_BYTES:
                    raise Refused(503, "too many large bodies at once")
                chunks.append(chunk)
                if not event.get("more_body", False):
                    return b"".join(chunks)
                coming = receive()
        finally:
            self.held_bytes -= size


async def drain(receive: Receive) -> None:
    """Reads on for a moment: a connection closed over unread bytes is reset, and the client would
    lose the answer that tells it why."""
    left = _DRAIN_BYTES
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while left > 0:
                event = await receive()
                left -= len(event.get("body", b""))
                if event["type"] != "http.request" or not event.get("more_body", False):
                    return
    except TimeoutError:
        pass


async def _answered(event: Event) -> Event:
    return event


async def _resumed(coroutine: Coroutine[Any, Any, Event], waits_for: Any) -> Event:
    """What a coroutine answers that has already been run up to its first wait."""
    return await _Rest(coroutine, waits_for)


class _Rest:
    """A coroutine from its first wait on."""

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, Event], waits_for: Any) -> None:
        self._coroutine, self._waits_for = coroutine, waits_for

    def __await__(self) -> Generator[Any, Any, Event]:
        try:
            yield self._waits_for
        except BaseException:
            self._coroutine.close()
            raise
        return (yield from self._coroutine.__await__())


def _too_large(most: int) -> bytes:
    raise Refused(413, f"the body has more than the {most} bytes that are allowed")
