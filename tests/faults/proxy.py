"""A TCP proxy on loopback between a process and a server; its faults are switched at run time.

with Proxy(server.port) as proxy:
    proxy.hang()            # connections stay open, nothing gets through, nothing is lost
    proxy.flow()            # ... and what was held back arrives
    proxy.lose_reply(b"insert")   # the next such request reaches the server, its reply nobody
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum
from typing import Self

HOST = "127.0.0.1"
_CHUNK = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST, not FIN


class Mode(Enum):
    FLOW = "flow"
    HANG = "hang"
    RESET = "reset"
    REFUSE = "refuse"
    DROP_REPLIES = "drop replies"


class Proxy:
    """Passes everything on to `target_port` until it is told otherwise. Thread-safe."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.port = port
        self.replies_lost = 0
        self._target_port = target_port
        self._mode = Mode.FLOW
        self._delay_seconds = 0.0
        self._losses: list[bytes] = []
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._flowing.set)
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self._call(self._flowing.set)
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    # faults

    def flow(self) -> None:
        """No fault. What was held back arrives; a connection that lost something ends."""
        self._delay_seconds = 0.0
        self._losses.clear()
        self._switch(Mode.FLOW)

    def delay(self, seconds: float) -> None:
        """Every chunk arrives so much later, in order, in both directions."""
        self._switch(Mode.FLOW)
        self._delay_seconds = seconds

    def hang(self) -> None:
        """Connections are taken and stay open; nothing gets through."""
        self._switch(Mode.HANG)

    def reset(self) -> None:
        """Ends every connection by RST, new ones too."""
        self._switch(Mode.RESET)

    def refuse(self) -> None:
        """Nobody listens any more, as if the server had died."""
        self._switch(Mode.REFUSE)

    def drop_replies(self) -> None:
        """Requests reach the server, its replies reach nobody."""
        self._switch(Mode.DROP_REPLIES)

    def lose_reply(self, request: bytes) -> None:
        """The next request that contains these bytes is served; then, instead of its reply, the
        client gets a reset connection."""
        self._losses.append(request)

    def break_connections(self) -> None:
        """Resets the connections of this moment, once."""
        self._call(self._abort_all)

    # inside

    def _switch(self, mode: Mode) -> None:
        former, self._mode = self._mode, mode
        if mode is Mode.HANG:
            self._call(self._flowing.clear)
        else:
            self._call(self._flowing.set)
        if mode is Mode.REFUSE:
            self._call(self._close_server)
        if mode in (Mode.RESET, Mode.REFUSE) or former is Mode.DROP_REPLIES:
            self._call(self._abort_all)
        if former is Mode.REFUSE and mode is not Mode.REFUSE:
            self._listen()

    def _call(self, function: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            function()
            done.set()

        self._loop.call_soon_threadsafe(run)
        if not done.wait(5):
            raise TimeoutError("the proxy's loop does not answer")

    def _listen(self) -> None:
        start = asyncio.start_server(self._accept, HOST, self.port)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(5)
        self.port = self._server.sockets[0].getsockname()[1]

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _abort_all(self) -> None:
        for link in list(self._links):
            link.abort()

    async def _finish(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.RESET:
            _abort(writer)
            return
        try:
            target = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            _abort(writer)
            return
        link = _Link(writer, target[1])
        self._links.add(link)
        try:
            await asyncio.gather(
                self._requests(reader, target[1], link), self._replies(target[0], writer, link)
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            link.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._hold_up()
            for request in self._losses:
                if request in chunk:
                    self._losses.remove(request)
                    link.doomed = True
                    break
            writer.write(chunk)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link
    ) -> None:
        while chunk := await reader.read(_CHUNK):
            await self._hold_up()
            if link.doomed:
                self.replies_lost += 1
                link.abort()
                return
            if self._mode is Mode.DROP_REPLIES:
                self.replies_lost += 1
                continue
            writer.write(chunk)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _hold_up(self) -> None:
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        await self._flowing.wait()


class _Link:
    """One connection: the client's side and the server's."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.doomed = False

    def abort(self) -> None:
        for writer in self._writers:
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
