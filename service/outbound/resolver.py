"""Names to addresses, by the system's resolver, without harm to what runs beside it.

`loop.getaddrinfo` would take threads of a pool that the whole process shares (four, with uvloop),
and one name server that doesn't answer takes all of them for many seconds. So each question has a
daemon thread of its own, equal questions at the same time are one, and there is a limit.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress

MAX_QUESTIONS = 64
"""At once. With that many unanswered, the next ones wait."""


class Resolver:
    """`await resolver(host, port)`; for one event loop."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_QUESTIONS)
        self._asked: dict[tuple[str, int], asyncio.Task[list[str]]] = {}

    async def __call__(self, host: str, port: int) -> list[str]:
        """All addresses of `host`, in the order to try them (RFC 6724).

        Raises `socket.gaierror`. An answer serves those who ask while it is under way, and is not
        kept after that.
        """
        key = (host, port)
        if key not in self._asked:
            self._asked[key] = task = asyncio.create_task(self._ask(host, port))
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(self._asked[key])  # others may wait for it too

    def _forget(self, key: tuple[str, int], done: asyncio.Task[list[str]]) -> None:
        del self._asked[key]
        if not done.cancelled():
            done.exception()  # whoever asked may be gone by now, and asyncio would complain

    async def _ask(self, host: str, port: int) -> list[str]:
        async with self._slots:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[list[str]] = loop.create_future()
            threading.Thread(
                target=_look_up, args=(host, port, answer, loop), name="resolver", daemon=True
            ).start()
            return await answer


def _look_up(
    host: str, port: int, answer: asyncio.Future[list[str]], loop: asyncio.AbstractEventLoop
) -> None:
    found: list[str] | Exception
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in entries))
    except (OSError, ValueError) as error:
        found = error
    with suppress(RuntimeError):  # the loop may be closed by now
        loop.call_soon_threadsafe(_settle, answer, found)


def _settle(answer: asyncio.Future[list[str]], found: list[str] | Exception) -> None:
    if answer.done():
        return
    if isinstance(found, Exception):
        answer.set_exception(found)
    else:
        answer.set_result(found)
