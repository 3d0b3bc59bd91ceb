"""Logging, set up once a process: JSON lines on stdout, or readable colours on a terminal.

gunicorn's, Dramatiq's and APScheduler's lines come in the same form, and so do Python's warnings
and what nobody caught. A value is always one line: JSON escapes what would break it, and the
console form shows control characters as escapes.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Any

import structlog

from service.runtime.json_lines import JsonLines
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
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_console() if console else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name, level in _NOISY.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _console() -> logging.Formatter:
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _printable,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=renderers)


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger("uncaught").critical("uncaught", exc_info=(kind, error, traceback))


def _uncaught_in_thread(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_value is not None and not issubclass(hook.exc_type, SystemExit):
        details = (hook.exc_type, hook.exc_value, hook.exc_traceback)
        fields = {"thread_name": hook.thread.name if hook.thread else None}
        logging.getLogger("uncaught").critical("uncaught", exc_info=details, extra=fields)


def _printable(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Every value on one line; of a traceback each line of its own, none of which can be taken for
    the beginning of another entry."""
    shown = {key: printable(v) if isinstance(v, str) else v for key, v in event.items()}
    if isinstance(traceback := event.get("exception"), str):
        shown["exception"] = "\n".join(f"  {printable(line)}" for line in traceback.split("\n"))
    return shown


def printable(text: str) -> str:
    """As it may be written to a terminal: with escapes for what that would obey."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
