"""gunicorn's ASGI worker, with what it lacks: problems instead of plain texts where it refuses a
request itself, a deadline for a connection's first request, an end on a signal while it boots, and
a quick and kind end later on.

It reaches into gunicorn's own classes, whose version is pinned; a test looks at both.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import suppress
from typing import Any

import orjson
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from service.runtime import garbage
from service.settings import Settings

_LAST_HEADERS_SECONDS = 1.0
_LAST_CONNECTIONS_SECONDS = 0.05
_NOTICE_SECONDS = 0.3


class PulseProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection. Later requests on it are bounded by gunicorn's own keep-alive time."""

    _late: asyncio.TimerHandle | None = None
    _early = b""
    """What has come of the next request while this one is being answered."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.worker.connections.add(self)
        self._expect_headers(self.worker.headers_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        self.worker.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Keeps back what comes too early. A client has its answer a moment before gunicorn is done
        with the request, and may send the next one in that moment. gunicorn's parser keeps only a
        little of it; for more it closes the connection without a word."""
        if self._early or self._has_all_of_a_request:
            self._early += data
            self._pause_reading()
        else:
            super().data_received(data)

    @property
    def _has_all_of_a_request(self) -> bool:
        """Until gunicorn forgets that request, nothing else may be fed to its parser."""
        body = self._body_receiver
        return body is not None and body._complete and self._current_request is not None

    def _resume_reading(self) -> None:
        """gunicorn calls this (among others) right before it forgets a request."""
        super()._resume_reading()
        if self._early:
            self.worker.loop.call_soon(self._take_early)

    def _take_early(self) -> None:
        if self._early and not self._closed and not self._has_all_of_a_request:
            early, self._early = self._early, b""
            super().data_received(early)

    @classmethod
    def say_close(cls) -> None:
        """From now on every answer of this process says that its connection ends with it. (Asking
        the worker each time would cost every request.)"""
        cls._will_close = lambda *_: True

    def end(self) -> None:
        """Closes it where it is idle between two requests; a first request must come soon; one that
        is being answered closes itself after that."""
        if not self._has_begun:
            self._expect_headers(_LAST_HEADERS_SECONDS)
        elif self._awaiting_request:
            self._keepalive_timeout()

    @property
    def _has_begun(self) -> bool:
        return self._current_request is not None or self.req_count > 1

    def _expect_headers(self, seconds: float) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self.worker.loop.call_later(seconds, self._look_for_headers)

    def _look_for_headers(self) -> None:
        if not self._has_begun:
            self._send_error_response(408, "the request's headers did not arrive in time")
            self._close_transport()
            self._request_ready.set()

    def _send_error_response(
        self, status: int, message: str, extra_headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        from service.api import problems  # not in the arbiter, which answers nobody

        request_id = self.worker.request_ids.new()
        body = orjson.dumps(problems.members(problems.plain(status), message, request_id))
        headers = {
            "Content-Type": problems.MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "X-Request-Id": request_id,
            **dict(extra_headers),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {status} {problems.plain(status).title}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._safe_write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


class PulseWorker(gasgi.ASGIWorker):  # type: ignore[misc]
    """What gunicorn.conf.py names."""

    leaving = False
    """Whether every answer says that its connection ends."""

    def init_process(self) -> None:
        self.init_signals()  # first: until now they are handled as in the master, which is not here
        from service.api.edge import RequestIds

        self.request_ids = RequestIds()
        self.connections: set[PulseProtocol] = set()
        self.headers_seconds = Settings.from_env().body_timeout_seconds
        gasgi.ASGIProtocol = PulseProtocol  # this process runs nothing else
        # It looks for the fast parser once a class, and for the result at its own class only.
        ASGIProtocol._check_h1c_protocol_available()
        super().init_process()

    def init_signals(self) -> None:
        """While it boots, a signal ends it at once: the event loop's handlers only work once the
        loop runs, and a SIGTERM that came before would be lost, and waited for in vain."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def run(self) -> None:
        garbage.settle()
        super().init_signals()
        super().run()

    def notify(self) -> None:
        """Once a second. The loop's own queue of new connections is short, and a sibling that has
        ended has closed it for all."""
        super().notify()
        if not self.leaving:
            self._listen(self.cfg.backlog)

    def handle_exit_signal(self) -> None:
        """SIGTERM. For a moment answers only say that the connection ends: a client that was just
        told otherwise may be sending its next request."""
        self.leaving = True
        self.asgi.leave()
        PulseProtocol.say_close()
        self.loop.call_later(_NOTICE_SECONDS, super().handle_exit_signal)

    async def _shutdown(self) -> None:
        """Whoever has connected is answered; idle connections don't hold up the end."""
        await self._take_last_connections()
        for connection in list(self.connections):
            connection.end()
        await super()._shutdown()

    async def _take_last_connections(self) -> None:
        """A listening socket that is closed resets what the kernel has queued for it. So hardly
        anything may queue any more, and the socket is closed right after its queue was empty."""
        self._listen(0)
        listeners = [listener.sock.dup() for listener in self.sockets]
        for server in self.servers:
            server.close()
        await asyncio.sleep(_LAST_CONNECTIONS_SECONDS)
        for connection in [c for listener in listeners for c in _queued(listener)]:
            await self.loop.connect_accepted_socket(lambda: PulseProtocol(self), connection)

    def _listen(self, backlog: int) -> None:
        for listener in self.sockets:
            listener.sock.listen(backlog)


def _queued(listener: socket.socket) -> list[socket.socket]:
    """The connections that have queued; closes the listener."""
    connections = []
    listener.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            connections.append(listener.accept()[0])
    listener.close()
    return connections
