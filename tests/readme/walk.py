"""Runs the pages' blocks against a started system, as written but for two things: the port, and
ids, which nobody can know before. An id in what a block shows stands for the one that it printed.

    python -m tests.readme.walk      in a fresh clone: ./infra/up, then all blocks of all pages
"""

from __future__ import annotations

import json
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

from tests.readme.answers import TOKEN, in_order, masked, unlike
from tests.readme.blocks import PAGES, ROOT, Block, blocks

PROGRAMS = {
    "sh": ["bash", "-euo", "pipefail", "-c"],
    "python": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "--eval"],
}
WALKED = {"run", "shows", "like"}
UP_SECONDS = 600  # a first start installs
ALIKE_SECONDS = 10


class Walk:
    """One walk through a page's blocks, in order."""

    def __init__(self, base_url: str, env: Mapping[str, str], folder: Path) -> None:
        self._base_url, self._env, self._folder = base_url, dict(env), folder
        self._tokens: dict[str, str] = {}
        self._last: Block | None = None
        self.output = ""
        """What the last block printed."""

    def take(self, block: Block) -> None:
        """Runs the block, or looks whether the last one printed what this one shows."""
        if block.what == "run":
            self._last, self.output = block, self._run(block)
        elif block.what == "shows":
            self._compare(block)
        elif block.what == "like":
            self._look_until_alike(block)

    def _look_until_alike(self, block: Block) -> None:
        """What has a form only is a look at what changes, and may be taken again: a system that has
        just started doesn't know all of it yet."""
        deadline = time.monotonic() + ALIKE_SECONDS
        while faults := unlike(json.loads(self.output), json.loads(block.text)):
            assert self._last, f"{block.place}: nothing was run"
            assert time.monotonic() < deadline, f"{block.place} has another form: {faults}"
            time.sleep(0.2)
            self.output = self._run(self._last)

    def _run(self, block: Block) -> str:
        text = block.text.replace("http://localhost:8000", self._base_url)
        for shown, true in self._tokens.items():
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
        where = block.place
        assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{done.stderr}"
        unexpected = "5" if block.answered else "[45]"  # a problem that is shown is meant
        assert not re.search(rf'"status":{unexpected}\d\d', done.stdout), f"{where}:\n{done.stdout}"
        return done.stdout

    def _compare(self, block: Block) -> None:
        printed, shown = in_order(self.output, block.text, block.language)
        assert masked(printed) == masked(shown), f"{block.place} shows something else"
        self._tokens |= dict(zip(TOKEN.findall(shown), TOKEN.findall(printed), strict=True))


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
        _show(f"./infra/up is up; taking the blocks of {len(PAGES)} pages")
        env["PATH"] = f"{clone / '.venv' / 'bin'}{os.pathsep}{env['PATH']}"
        _take_all(env | _urls(log), clone)
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


def _take_all(env: dict[str, str], clone: Path) -> None:
    passed = skipped = 0
    for page in PAGES:
        walk = Walk("http://localhost:8000", env, clone)
        for block in blocks(clone / page.relative_to(ROOT)):
            if block.what == "run" and shutil.which(PROGRAMS[block.language][0]) is None:
                skipped += 1
            elif block.what in WALKED:
                walk.take(block)
                passed += 1
                _show(f"  {block.place:<18} {block.what:<5} {block.language}  ok")
    _show(f"{passed} blocks passed, {skipped} skipped")


def _show(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
