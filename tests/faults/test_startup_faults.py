"""What can't start says why, or waits and says for what."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.servers import free_port
from tests.faults.processes import Process
from tests.faults.waiting import eventually

NOBODY = {
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "MONGODB_URI": "mongodb://127.0.0.1:1/x?directConnection=true",
    "MONGODB_TIMEOUT_MS": "1000",
}


def start(kind: str, folder: Path, **env: str) -> Process:
    log = folder / f"{kind}.log"
    log.touch()
    process = Process(kind, {"LOG_FORMAT": "json", **NOBODY, **env}, log)
    process.start()
    return process


@pytest.mark.parametrize("kind", ["web", "worker"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_SECONDS", "soon"),
        ("REDIS_URL", "http://x"),
        ("LOG_LEVEL", "loud"),
        ("WEB_CONCURRENCY", "abc"),  # gunicorn reads it too, as soon as it is imported
    ],
)
def test_a_wrong_setting_stops_the_start_with_its_name_and_an_exit_code(
    tmp_path: Path, kind: str, name: str, value: str
) -> None:
    process = start(kind, tmp_path, **{name: value})
    code = process.wait(20)
    assert code not in {0, None}
    assert process.says(f"setting {name}: ")
    assert not process.says("Traceback")


def test_a_number_of_web_processes_that_is_set_to_nothing_is_the_default(tmp_path: Path) -> None:
    process = start("web", tmp_path, WEB_CONCURRENCY="", PORT=str(free_port()))
    eventually(lambda: process.says("Booting worker"), "it starts", within=20)
    assert not process.says("Traceback")
    assert process.stop(12) == 0


def test_a_worker_without_mongodb_waits_says_so_and_stops_when_told(tmp_path: Path) -> None:
    process = start("worker", tmp_path)
    eventually(lambda: process.says("waiting for MongoDB"), "it says so", within=15)
    assert process.running
    assert process.stop(10) == 0


@pytest.mark.soak
def test_a_web_without_servers_answers_503_says_so_and_stops_when_told(tmp_path: Path) -> None:
    from tests.faults.api import Api

    port = free_port()
    process = start("web", tmp_path, PORT=str(port))
    api = Api(port)
    answer = eventually(lambda: api.try_post("simulate"), "it answers", within=20)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert api.http.get("/health").status_code == 503
    assert api.http.get("/health/live").status_code == 200
    assert process.says("MongoDB")
    api.close()
    assert process.stop(12) == 0
