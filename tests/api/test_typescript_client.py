"""The types that openapi-typescript makes of /openapi.json, and a program that uses all of them.

The program is typescript/use.ts: it must pass the strict type check, and then run. Its packages are
pinned in typescript/package-lock.json; npm puts them into pytest's cache, once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from service.api.openapi_operations import OPERATIONS
from service.job import Outcome
from service.store import JobStore
from tests.api.server import Web
from tests.factories import claimed, failed, finish

SOURCES = Path(__file__).with_name("typescript")
PACKAGES = ("package.json", "package-lock.json", ".npmrc")
OLDEST_NODE = 20
INSTALL_SECONDS, RUN_SECONDS = 120, 60
UNREACHABLE = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ERR_SOCKET_TIMEOUT|ENETUNREACH"
    r"|EHOSTUNREACH|ENOTCACHED)\b"
)


def node_version() -> int:
    """Node's major version; 0: there is none."""
    if shutil.which("node") is None:
        return 0
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)\.", said.stdout)
    return int(found[1]) if found else 0


pytestmark = [
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on PATH"),
    pytest.mark.skipif(
        node_version() < OLDEST_NODE, reason=f"no Node {OLDEST_NODE} or later is on PATH"
    ),
    pytest.mark.timeout(INSTALL_SECONDS + 3 * RUN_SECONDS),
]


def install(folder: Path) -> None:
    """Fills `folder`/node_modules; skips the test where npm reaches no registry."""
    wanted = sha256(b"".join((SOURCES / name).read_bytes() for name in PACKAGES)).hexdigest()
    done = folder / "installed"
    if done.exists() and done.read_text() == wanted:
        return
    for name in PACKAGES:
        shutil.copy(SOURCES / name, folder)
    command = ["npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"]
    retries = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000"]
    ran = subprocess.run(
        [*command, *retries],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS,
    )
    if ran.returncode != 0 and UNREACHABLE.search(ran.stderr):
        pytest.skip(f"npm reaches no registry: {ran.stderr[-500:]}")
    assert ran.returncode == 0, ran.stderr
    done.write_text(wanted)


def node(folder: Path, script: str, *arguments: str, **env: str) -> list[str]:
    """The lines that a script prints; fails, with all that it said, where that does."""
    ran = subprocess.run(
        ["node", script, *arguments],
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "warning" not in (ran.stdout + ran.stderr).lower(), ran.stdout + ran.stderr
    return ran.stdout.splitlines()


@pytest.fixture
def program(web: Web, request: pytest.FixtureRequest) -> Path:
    """The folder of the program, with its packages and the types of this web in it."""
    assert request.config.cache is not None
    folder = request.config.cache.mkdir("typescript-client")
    install(folder)
    for name in ("use.ts", "tsconfig.json"):
        shutil.copy(SOURCES / name, folder)
    (folder / "openapi.json").write_text(web.http.get("/openapi.json").text)
    generator = "node_modules/openapi-typescript/bin/cli.js"
    node(folder, generator, "openapi.json", "--output", "api.ts")
    return folder


def prepared(jobs: JobStore) -> dict[str, str]:
    """The ids of events in states that only a worker brings about."""
    done, running = claimed(jobs), claimed(jobs)
    assert finish(jobs, done, Outcome.COMPLETED, result={"ok": True})
    return {"failed": failed(jobs)["_id"], "completed": done.id, "processing": running.id}


def test_a_program_fits_the_generated_types_and_runs(
    web: Web, jobs: JobStore, program: Path
) -> None:
    shutil.rmtree(program / "made", ignore_errors=True)
    node(program, "node_modules/typescript/bin/tsc", "--project", ".")
    events = json.dumps(prepared(jobs))
    used = node(program, "made/use.js", WEB_URL=web.url, PREPARED=events)
    assert set(used) == {operation.id for operation in OPERATIONS}
