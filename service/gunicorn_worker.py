"""gunicorn's ASGI worker, with three things that it lacks: problems instead of plain texts where it
refuses a request itself, a deadline for a connection's first request, and an end on a signal while
it boots.

It reaches into gunicorn's own classes, whose version is pinned; a test looks at both.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import orjson
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from service.api import problems
from service.api.edge import RequestIds

_FIRST_HEADERS_SECONDS = 10.0
_ids = RequestIds()


class PulseProtocol(ASGIProtocol):  # type: ignore[misc]
    """One connection. Later requests on it are bounded by gunicorn's own keep-alive time."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        loop = self.worker.loop
        self._late = loop.call_later(_FIRST_HEADERS_SECONDS, self._headers_are_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _on_headers_complete(self) -> Any:
        if self._late is not None:
            self._stop_timer()
        return super()._on_headers_complete()

    def _headers_are_late(self) -> None:
        self._send_error_response(408, "the request's headers did not arrive in time")
        self._close_transport()
        self._request_ready.set()

    def _stop_timer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _send_error_response(
        self, status: int, message: str, extra_headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        request_id = _ids.new()
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

    def init_process(self) -> None:
        gasgi.ASGIProtocol = PulseProtocol  # this process runs nothing else
        super().init_process()

    def init_signals(self) -> None:
        """While it boots, a signal ends it at once: the event loop's handlers only work once the
        loop runs, and a SIGTERM that came before would be lost, and waited for in vain."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def run(self) -> None:
        super().init_signals()
        super().run()
