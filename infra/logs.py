"""The log files of several processes as one readable stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from service.runtime.log import printable

PARTIAL_LINE_LIMIT = 64 * 1024  # bytes kept of a line whose end has not come


class LogFollower:
    """Yields what is added to a log file after it was made, also across a rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0
        self._inode = path.stat().st_ino if path.exists() else 0
        self._partial = b""

    def new_lines(self) -> Iterator[str]:
        try:
            with self._path.open("rb") as log:
                stat = self._path.stat()
                if stat.st_ino != self._inode or stat.st_size < self._position:
                    self._inode, self._position = stat.st_ino, 0
                log.seek(self._position)
                added = log.read()
                self._position = log.tell()
        except FileNotFoundError:
            return
        *lines, partial = (self._partial + added).split(b"\n")
        self._partial = partial[-PARTIAL_LINE_LIMIT:]
        yield from (line.decode(errors="replace") for line in lines)


def readable(line: str) -> str:
    """A structured log line as `time level event key=value ...`; any other line as it is."""
    try:
        entry = json.loads(line)
    except ValueError:
        return printable(line)
    if not isinstance(entry, dict) or "event" not in entry:
        return printable(line)
    time = str(entry.pop("timestamp", ""))[11:23]
    level = str(entry.pop("level", "")).upper()
    event = entry.pop("event")
    return printable(f"{time} {level:<7} {event}") + _fields(entry)


def _fields(entry: Mapping[str, object]) -> str:
    words = (f"  {key}={value}" for key, value in entry.items() if key not in {"logger", "pid"})
    return "\n    ".join(printable(line) for line in "".join(words).split("\n"))
