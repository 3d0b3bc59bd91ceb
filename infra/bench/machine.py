"""What the figures were measured on and with, without which they say nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import psutil

from infra.bench.load import TOOL
from infra.bench.stack import ROOT, Stack
from service.settings import Settings

_PACKAGES = ("falcon", "gunicorn", "uvloop", "dramatiq", "redis", "pymongo")


def described(stack: Stack) -> dict[str, str]:
    """Machine, versions, settings; `stack`: any one, for the servers' versions."""
    memory_gb = psutil.virtual_memory().total / 1e9
    return {
        "machine": f"{_processor()}, {_cores()} cores, {memory_gb:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "redis": str(stack.redis_figures.version()),
        "mongodb": str(stack.mongo.server_info()["version"]),
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "load": _load_tool(),
        "commit": _commit(),
        "settings": " ".join(_settings()) or "the defaults",
    }


def _processor() -> str:
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return " ".join(found[1].split()) if found else platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_tool() -> str:
    first = _first_line(["wrk", "--version"]) if TOOL == "wrk" else ""
    return first.partition(" Copyright")[0] or TOOL


def _commit() -> str:
    """Of the checkout, `+` where something was changed; empty outside of one."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        return ""
    commit = _first_line(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changed = _first_line(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"])
    return commit + ("+" if commit and changed else "")


def _settings() -> Sequence[str]:
    """Those that the environment sets."""
    shown = Settings.from_env().shown()
    ours = {"PORT", "REDIS_URL", "MONGODB_URI"}
    names = [name for name in shown if name in os.environ and name not in ours]
    threads = [name for name in ("WORKER_THREADS",) if name in os.environ]
    return [f"{name}={shown.get(name, os.environ.get(name))}" for name in (*names, *threads)]


def _first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0].strip()
