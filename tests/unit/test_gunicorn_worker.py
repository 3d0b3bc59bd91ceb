"""What we reach into of gunicorn is where we think it is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.config import Config
from gunicorn.workers import gasgi

from service.server.gunicorn_worker import PulseProtocol, PulseWorker


def test_the_fast_parser_is_found() -> None:
    """gunicorn looks for it once a class and remembers it at another."""
    h1c = pytest.importorskip("gunicorn_h1c")
    ASGIProtocol._check_h1c_protocol_available()
    worker = SimpleNamespace(cfg=Config(), log=None, asgi=None)
    protocol = PulseProtocol(worker)
    protocol.transport = SimpleNamespace(get_extra_info=lambda _name: None)
    assert protocol.req_count == 0
    assert not protocol._has_begun
    assert protocol._keepalive == worker.cfg.keepalive
    protocol._setup_callback_parser()
    assert type(protocol._callback_parser) is h1c.H1CProtocol


@pytest.mark.parametrize(
    "name",
    [
        *("connection_made", "connection_lost", "_send_error_response"),
        *("_keepalive_timeout", "_close_transport", "_safe_write"),
    ],
)
def test_what_is_overridden_or_called_is_there(name: str) -> None:
    assert callable(getattr(ASGIProtocol, name))


def test_the_worker_names_its_protocol_where_we_replace_it() -> None:
    assert gasgi.ASGIProtocol in {ASGIProtocol, PulseProtocol}
    assert issubclass(PulseWorker, gasgi.ASGIWorker)
    for name in ("_shutdown", "notify", "handle_exit_signal", "init_signals", "run"):
        assert callable(getattr(gasgi.ASGIWorker, name))
    assert asyncio.iscoroutinefunction(gasgi.ASGIWorker._shutdown)
