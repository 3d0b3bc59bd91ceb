"""Runs the README's blocks against a started system, as written but for two things: the port, and
ids, which nobody can know before. An id in what a block shows stands for the one that it printed.

    python -m tests.readme.walk      in a fresh clone: ./infra/up, then all blocks
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.readme.blocks import README, ROOT, Block, blocks

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_DIFFERS = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"  # times
    r'|(?<="worker":")[^"]*'
)
PROGRAMS = {
    "sh": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "--eval"],
}
UP_SECONDS = 600  # a first start installs


class Walk:
    """One walk through the blocks that are run, in order."""

    def __init__(self, base_url: str, env: Mapping[str, str], folder: Path) -> None:
        self._base_url, self._env, self._folder = base_url, dict(env), folder
        self._ids: dict[str, str] = {}
        self.output = ""
        """What the last block printed."""

    def take(self, block: Block) -> None:
        """Runs the block, or looks whether the last one printed what this one shows."""
        if block.what == "run":
            self.output = self._run(block)
        elif block.what == "shows":
            self._compare(block)

    def _run(self, block: Block) -> str:
        text = block.text.replace("http://localhost:8000", self._base_url)
        for shown, true in self._ids.items():
            text = text.replace(shown, true)
        done = subprocess.run(
            [*PROGRAMS[block.language], text],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        where = f"README.md:{block.line}"
        assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{done.stderr}"
        assert '"status":5' not in done.stdout, f"{where}:\n{done.stdout}"
        return done.stdout

    def _compare(self, block: Block) -> None:
        shown, printed = block.text.strip(), self.output.strip()
        assert _masked(printed) == _masked(shown), f"README.md:{block.line} shows something else"
        self._ids |= dict(zip(_ID.findall(shown), _ID.findall(printed), strict=True))


def _masked(text: str) -> str:
    return _DIFFERS.sub("*", _ID.sub("*", text))


def main() -> int:
    """A fresh clone, `./infra/up`, and all that follows; the exit code."""
    with tempfile.TemporaryDirectory(prefix="readme-") as name:
        clone = Path(name) / "pulsequeue"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        home = Path(name) / "home"
        home.mkdir()
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
        for kept in ("PIP_INDEX_URL", "PIP_CONFIG_FILE"):
            if kept in os.environ:
                env[kept] = os.environ[kept]
        return _walk(clone, env)


def _walk(clone: Path, env: dict[str, str]) -> int:
    log = clone.parent / "up.log"
    with log.open("w") as out:
        up = subprocess.Popen(
            ["./infra/up"], cwd=clone, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_up(up, log)
        _show(f"./infra/up is up; taking the blocks of {README.name}")
        env["PATH"] = f"{clone / '.venv' / 'bin'}{os.pathsep}{env['PATH']}"
        _take_all(Walk("http://localhost:8000", env | _urls(log), clone), clone)
    finally:
        up.send_signal(signal.SIGINT)
        code = up.wait(120)
    _show(f"./infra/up ended with {code} after Ctrl-C")
    return code


def _wait_until_up(up: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while "Ctrl-C stops everything" not in log.read_text():
        if up.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"./infra/up did not come up:\n{log.read_text()}")
        time.sleep(0.2)


def _urls(log: Path) -> dict[str, str]:
    """Of the servers that `infra/up` started, for the commands that ask them."""
    text = log.read_text()
    found = dict(re.findall(r"^  (redis|mongodb) +(\S+)$", text, re.MULTILINE))
    return {"REDIS_URL": found["redis"], "MONGODB_URI": found["mongodb"]}


def _take_all(walk: Walk, clone: Path) -> None:
    passed = skipped = 0
    for block in blocks((clone / "README.md").read_text()):
        if block.what == "run" and shutil.which(PROGRAMS[block.language][0]) is None:
            skipped += 1
            continue
        if block.what in {"run", "shows"}:
            walk.take(block)
            passed += 1
            _show(f"  README.md:{block.line:<4} {block.what:<5} {block.language}  ok")
    _show(f"{passed} blocks passed, {skipped} skipped")


def _show(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
