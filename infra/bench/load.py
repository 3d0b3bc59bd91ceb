"""Load from outside: by `wrk` where it is on PATH, else by our own client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.bench.client import Task
from infra.bench.figures import percentile_of_counts
from infra.bench.processes import BenchError

EVENT = '{"type":"simulate","payload":{}}'
WRK = shutil.which("wrk")
TOOL = "wrk" if WRK else "the benchmark's own client"
_SCRIPT = Path(__file__).with_name("post.lua")
_SLACK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it; the times are those from a request to its answer."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int


class Load:
    """Posts the same body again and again for so many seconds, in a process of its own.

    `rate`: that many posts a second whatever the answers take; 0: each connection as fast as it
    can, one request at a time.
    """

    def __init__(
        self,
        port: int,
        connections: int,
        seconds: int,
        *,
        body: str = EVENT,
        path: str = "/events",
        rate: float = 0.0,
    ) -> None:
        self._task = Task(port, path, body, connections, seconds, rate)
        self._by_wrk = bool(WRK) and not rate
        self._process = subprocess.Popen(
            self._wrk_command() if self._by_wrk else self._client_command(),
            env={**os.environ, "BENCH_BODY": body},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> Loaded:
        """Waits for its end."""
        try:
            out, problem = self._process.communicate(timeout=self._task.seconds + _SLACK_SECONDS)
        finally:
            if self._process.poll() is None:
                self._process.kill()
        if self._process.returncode:
            raise BenchError(f"no load from {TOOL}:\n{out[-500:]}{problem[-2000:]}")
        return _from_wrk(out) if self._by_wrk else _from_client(out)

    def _wrk_command(self) -> list[str]:
        task = self._task
        options = ["-t1", f"-c{task.connections}", f"-d{task.seconds:.0f}s", "--timeout", "30s"]
        url = f"http://127.0.0.1:{task.port}{task.path}"
        return ["wrk", *options, "-s", str(_SCRIPT), url]

    def _client_command(self) -> list[str]:
        return [sys.executable, "-m", "infra.bench.client", json.dumps(asdict(self._task))]


def _from_wrk(out: str) -> Loaded:
    told = json.loads(out.strip().splitlines()[-1])
    return Loaded(
        told["requests"],
        told["requests"] / (told["took"] / 1e6),
        told["p50"] / 1e3,
        told["p99"] / 1e3,
        told["errors"],
    )


def _from_client(out: str) -> Loaded:
    answers = json.loads(out)
    times = Counter({int(us): count for us, count in answers["microseconds"].items()})
    return Loaded(
        answers["requests"],
        answers["requests"] / (answers["seconds"] or 1.0),
        percentile_of_counts(times, 0.5) / 1e3,
        percentile_of_counts(times, 0.99) / 1e3,
        answers["errors"],
    )
