"""What a killed `infra/up` has left: found by supervisord's session, ended by process id."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

SESSION_FILE = "session"  # in the data folder: the process id of supervisord, which leads a session
STOP_SECONDS = 60  # longer than the grace that web, worker and servers give themselves
ORPHAN_SECONDS = 10


def end_leftovers(local: Path, tell: Callable[[str], None]) -> None:
    """Ends, by process id, what an `infra/up` on this data folder started and left."""
    while found := leftovers(local):
        tell(f"Ending {found[0].name()} ({found[0].pid}), which was left behind")
        # supervisord has to stop all of its programs; an orphan has been told already.
        _end(found[0], 2 * STOP_SECONDS if _is_master(found[0]) else ORPHAN_SECONDS)


def leftovers(local: Path) -> list[psutil.Process]:
    """All of supervisord's session, in the order to end them: itself, then masters before their
    children, which they would replace, and servers last, since they are the oldest.

    No process id is given out again while a session has it, so only a leader younger than our file
    can be a stranger.
    """
    try:
        session = int((local / SESSION_FILE).read_text())
    except (OSError, ValueError):
        return []
    members = [process for process in psutil.process_iter() if _session_of(process) == session]
    written = (local / SESSION_FILE).stat().st_mtime
    if any(p.pid == session and p.create_time() > written + 1 for p in members):
        return []
    return sorted(members, key=lambda p: (p.pid != session, not _is_master(p), -p.create_time()))


def end_orphans(local: Path, master: int) -> None:
    """Asks the children of a master that died to end: its successor has its own."""
    for process in leftovers(local):
        if _group_of(process) == master:
            with suppress(psutil.NoSuchProcess):
                process.terminate()


def _end(process: psutil.Process, patience_seconds: float) -> None:
    try:
        process.resume()  # a stopped one would not hear SIGTERM
        process.terminate()
        process.wait(patience_seconds)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
    except psutil.NoSuchProcess:
        pass


def _is_master(process: psutil.Process) -> bool:
    """supervisord makes each of its children the leader of a group."""
    return bool(_group_of(process) == process.pid)


def _group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except OSError:  # gone meanwhile
        return None


def _session_of(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else None
    except (OSError, psutil.Error):  # gone meanwhile
        return None
