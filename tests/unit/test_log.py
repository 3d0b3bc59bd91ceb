"""A log line is one JSON object on one line, whoever wrote it and whatever it says."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

NEL, SEPARATOR, OVERRIDE, CSI = "\x85", "\u2028", "\u202e", "\x9b"
HOSTILE = f"a\r\nlevel=critical\x1b[31m red \x1b[0m\0{CSI}2J{NEL}{SEPARATOR}{OVERRIDE}\x7f end"

SETUP = """
import logging, sys, threading, warnings
from service.runtime import log
from service.settings import Settings
log.configure(Settings(log_format={form!r}))
"""


def run(code: str, form: str = "json") -> subprocess.CompletedProcess[bytes]:
    script = SETUP.format(form=form) + code
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=30, check=False
    )


def line_of(code: str) -> dict[str, Any]:
    """The one line that the code logs."""
    (line,) = lines_of(code)
    return line


def lines_of(code: str) -> list[dict[str, Any]]:
    done = run(code)
    assert done.stderr == b""
    *lines, rest = done.stdout.split(b"\n")
    assert rest == b""
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    "name",
    [
        "service.web.accept",
        "service.worker.maintenance.sweep",
        "gunicorn.error",
        "dramatiq.worker.ConsumerThread",
    ],
)
def test_every_logger_writes_the_same_form(name: str) -> None:
    line = line_of(f"logging.getLogger({name!r}).warning('%s went wrong', 'it')")
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "it went wrong", "level": "warning", "logger": name}


def test_apschedulers_warnings_are_logged_and_its_chatter_is_not() -> None:
    line = line_of(
        "logger = logging.getLogger('apscheduler.executors.sweep')\n"
        "logger.info('Running job')\n"
        "logger.warning('Run time of job was missed by %s', '0:00:02')"
    )
    assert line["event"] == "Run time of job was missed by 0:00:02"
    assert line["logger"] == "apscheduler.executors.sweep"


def test_fields_beside_the_message_are_members() -> None:
    line = line_of("logging.getLogger('x').error('no', extra={'event_id': '1', 'attempt': 2})")
    assert (line["event"], line["event_id"], line["attempt"]) == ("no", "1", 2)


@pytest.mark.parametrize("where", ["message", "field", "exception"])
def test_hostile_text_stays_one_line_and_reaches_no_terminal(where: str) -> None:
    code = {
        "message": f"logging.getLogger('x').error({HOSTILE!r})",
        "field": f"logging.getLogger('x').error('m', extra={{'payload': {HOSTILE!r}}})",
        "exception": (
            f"try: raise RuntimeError({HOSTILE!r})\n"
            "except RuntimeError: logging.getLogger('x').exception('failed')"
        ),
    }[where]
    done = run(code)
    text = done.stdout.decode()
    assert text.splitlines() == [text[:-1]]
    assert all(character.isprintable() for character in text[:-1])
    assert HOSTILE in "".join(str(value) for value in json.loads(text).values())


@pytest.mark.parametrize("value", ["'\\ud800'", "2 ** 80", "{1: object()}", "b'x'", "{'a', 'b'}"])
def test_a_value_that_is_no_json_is_logged_all_the_same(value: str) -> None:
    line = line_of(f"logging.getLogger('x').error('m', extra={{'value': {value}}})")
    assert line["event"] == "m"
    assert "value" in line


def test_an_uncaught_error_is_one_line() -> None:
    done = run("raise RuntimeError('two\\nlines')")
    assert (done.returncode, done.stderr) == (1, b"")
    line = json.loads(done.stdout)
    assert (line["level"], line["logger"]) == ("critical", "uncaught")
    assert line["exception"].endswith("RuntimeError: two\nlines")


def test_an_uncaught_error_of_a_thread_is_one_line() -> None:
    line = line_of("threading.Thread(target=lambda: 1 / 0, name='committer').start()")
    assert (line["level"], line["thread_name"]) == ("critical", "committer")
    assert "ZeroDivisionError" in line["exception"]


def test_a_warning_of_python_is_one_line() -> None:
    line = line_of("warnings.warn('old', UserWarning)")
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")


def test_the_console_form_shows_control_characters_as_escapes() -> None:
    done = run(f"logging.getLogger('x').error({HOSTILE!r})", form="console")
    text = done.stdout.decode()
    assert len(text.splitlines()) == 1
    assert "\\x1b[31m red" in text
    assert "\x1b[31m red" not in text


def test_the_console_form_shows_a_traceback_by_lines_and_what_it_says_as_escapes() -> None:
    code = (
        f"try: raise RuntimeError('first' + chr(10) + {HOSTILE!r})\n"
        "except RuntimeError: logging.getLogger('x').exception('failed')"
    )
    text = run(code, form="console").stdout.decode()
    head, *traceback = text[:-1].split("\n")
    assert "failed" in head
    assert traceback[0] == "  Traceback (most recent call last):"
    assert traceback[-3:-1] == ["  RuntimeError: first", "  a\\r"]
    assert all(line.startswith("  ") and line.isprintable() for line in traceback), traceback
    assert "\\x1b[31m red" in text
