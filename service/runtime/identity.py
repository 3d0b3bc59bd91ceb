"""Who a process is, as others can check it."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from service.store.workers import Worker

VERSION = "1.0.0"
"""Of the application; the only place that has it."""


def this_worker(queues: list[str], threads: int) -> Worker:
    """This process, under an id that no other ever has."""
    host, pid = socket.gethostname(), os.getpid()
    return Worker(
        id=f"{host}-{pid}-{secrets.token_hex(4)}",
        host=host,
        pid=pid,
        process_space=process_space(),
        pid_started=pid_started(pid) or 0,
        queues=tuple(queues),
        threads=threads,
        version=VERSION,
    )


def process_space() -> str:
    """The same text for processes whose pids mean the same: this boot, this PID namespace.

    A text of its own where /proc is missing, or shows the pids of another namespace.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if int(os.readlink("/proc/self")) == os.getpid():
            return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        pass
    return f"unknown/{secrets.token_hex(8)}"


def pid_started(pid: int) -> int | None:
    """When the process began, in the kernel's ticks since boot; None where /proc doesn't say."""
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def is_gone(pid: int, started: int) -> bool:
    """Whether it is certain that the process which began then runs no more.

    That /proc shows nothing means nothing: it may hide what others own (`hidepid`, systemd's
    `ProtectProc`). A signal finds every process there is, also where it may not be sent.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    fields = _stat(pid)
    return fields is not None and (fields[0] in "ZX" or int(fields[19]) != started)


def _stat(pid: int) -> list[str] | None:
    """The kernel's fields on a process, its state first; None where they can't be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
