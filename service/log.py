"""Logging, set up once a process: JSON lines on stdout, or readable colours on a terminal.

gunicorn's, Dramatiq's and APScheduler's lines come in the same form. A value is always one line:
JSON escapes what would break it, and the console form shows control characters as escapes.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson
import structlog

from service.settings import Settings

_NOISY = {
    "apscheduler": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    # An attempt that fails is one line of ours.
    "dramatiq.middleware.retries": logging.ERROR,
}


def configure(settings: Settings) -> None:
    """Sends every logger of this process to the real stdout, whatever stands in for it."""
    stream = sys.__stdout__ or sys.stderr
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and stream.isatty()
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Any] = (
        [_printable, structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, _json_line]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(level)


def _json_line(_logger: Any, _method: str, event: dict[str, Any]) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()


def _printable(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.encode("unicode_escape").decode()
        if isinstance(value, str) and not value.isprintable() and key != "exception"
        else value
        for key, value in event.items()
    }
