"""What one would pick instead, to measure beside us: each a small program in `peer/`.

A peer does the same work: `POST /events` checks its body, inserts a document by majority and
journal, sends a message, answers 202; its worker claims by compare-and-set, waits as long as the
payload says, and completes by compare-and-set. It is installed once, under `.local/bench`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.bench.processes import BenchError
from infra.bench.stack import ROOT, Contestant

_SOURCES = Path(__file__).with_name("peer")
_STAMP = "installed"


@dataclass(frozen=True, slots=True)
class Peer:
    """`needs`: programs on PATH. Commands are run by bash in the peer's own folder."""

    folder: str
    needs: tuple[str, ...]
    install: Sequence[Sequence[str]]
    web: str
    worker: str
    path: str


PEERS = {
    "falcon-dramatiq": Peer(
        folder="falcon_dramatiq",
        needs=(),
        install=(
            (sys.executable, "-m", "venv", "--clear", "venv"),
            (
                "venv/bin/pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "-r",
                "requirements.txt",
            ),
        ),
        web="gunicorn app:app -k gthread -w 2 --threads 16 -b 127.0.0.1:$PORT "
        "--log-level error --no-control-socket",
        worker="dramatiq app -p 1 -t 16",
        path="venv/bin",
    ),
    "express-bullmq": Peer(
        folder="express_bullmq",
        needs=("node", "npm"),
        install=(("npm", "install", "--no-audit", "--no-fund", "--silent"),),
        web="node app.js web",
        worker="node app.js worker",
        path="node_modules/.bin",
    ),
}


def contestant(name: str) -> Contestant:
    """The peer, installed. Raises `BenchError`."""
    peer = PEERS[name]
    for program in peer.needs:
        if not shutil.which(program):
            raise BenchError(f"the peer {name} needs {program} on PATH")
    folder = ROOT / ".local" / "bench" / name
    folder.mkdir(parents=True, exist_ok=True)
    for source in (_SOURCES / peer.folder).iterdir():
        if source.is_file():
            shutil.copyfile(source, folder / source.name)
    _install(name, peer, folder)
    commands = {
        role: ["bash", "-c", f"exec {command}"]
        for role, command in (("web", peer.web), ("worker", peer.worker))
    }
    return Contestant(name, folder, commands, str(folder / peer.path), is_peer=True)


def _install(name: str, peer: Peer, folder: Path) -> None:
    wanted = "".join(
        (folder / file).read_text()
        for file in ("requirements.txt", "package.json")
        if (folder / file).exists()
    )
    stamp = folder / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing {name}", file=sys.stderr, flush=True)
    for command in peer.install:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{name}: {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    stamp.write_text(wanted)
