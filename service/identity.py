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
    """The same text for processes whose pids mean the same: this boot, this PID namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown/{secrets.token_hex(8)}"


def pid_started(pid: int) -> int | None:
    """When the process began, in the kernel's ticks since boot; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
