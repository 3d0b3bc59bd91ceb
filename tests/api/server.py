"""A real web process for tests, with a client that never waits for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from infra.servers import HOST, free_port
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0
EVENT = {"type": "simulate", "payload": {}}


class Web:
    """The web as the Procfile starts it; `settings` become its environment."""

    def __init__(self, log: Path, settings: Settings, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.log = log
        self._env = _environment(settings) | {"PORT": str(self.port)} | dict(env or {})
        self.url = f"http://{HOST}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        # A server that is stopped closes idle connections: better not to hold old ones.
        limits = httpx.Limits(keepalive_expiry=2)
        self.http = httpx.Client(base_url=self.url, timeout=30, trust_env=False, limits=limits)

    def start(self, wait: bool = True) -> None:
        command = [
            *(sys.executable, "-m", "service.serve", "-c", "infra/gunicorn.conf.py"),
            "service.app:get_app()",
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.is_live():
            end_of_log = self.log.read_text()[-3_000:]
            assert self.running, end_of_log
            assert time.monotonic() < deadline, end_of_log
            time.sleep(0.02)

    def is_live(self) -> bool:
        try:
            return self.http.get("/health/live").status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_end(self, timeout_seconds: float = 20) -> int:
        """Its exit code."""
        assert self._process is not None
        return self._process.wait(timeout_seconds)

    def pids(self) -> list[int]:
        """The master's, then its children's."""
        assert self._process is not None
        own = psutil.Process(self._process.pid)
        return [own.pid, *(child.pid for child in own.children())]

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        if self._process is not None and self.running:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def terminate(self) -> None:
        """SIGTERM to the master, as platforms do."""
        assert self._process is not None
        self._process.terminate()

    def stop(self) -> None:
        self.http.close()
        if self._process is not None and self.running:
            self.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    # what tests say most

    def post(self, body: Any = None, **headers: str) -> httpx.Response:
        """Posts an event; `idempotency_key="x"` becomes the header `Idempotency-Key`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post("/events", json=EVENT if body is None else body, headers=named)

    def send(self, body: bytes, content_type: str = "application/json") -> httpx.Response:
        """Posts bytes."""
        return self.http.post("/events", content=body, headers={"Content-Type": content_type})

    def get(self, event_id: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.get(f"/events/{event_id}", headers=named)


@contextmanager
def running_web(log: Path, settings: Settings, **env: str) -> Iterator[Web]:
    """A web process, killed in the end: a test that looks at how it ends has ended it itself."""
    web = Web(log, settings, env)
    try:
        web.start()
        yield web
    finally:
        web.http.close()
        web.kill()


def _environment(settings: Settings) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    given = {
        "REDIS_URL": settings.redis_url,
        "MONGODB_URI": settings.mongodb_uri,
        "SIMULATE_FAULTS": "1",
        "WEBHOOK_ALLOWED_HOSTS": "hooks.example.com",
        "LOG_FORMAT": "json",
    }
    return kept | given
