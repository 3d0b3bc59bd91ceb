"""What platforms are told: the same commands everywhere, and times that fit into each other."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from configparser import RawConfigParser
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
SETTINGS = {name for f in fields(Settings) for name in (f.name.upper(), *f.metadata["also"])}
GRACE_SECONDS = Settings().shutdown_grace_seconds


def procfile() -> dict[str, list[str]]:
    """The commands, with the defaults of their variables."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    pairs = [line.split(":", 1) for line in lines if line and not line.startswith("#")]
    return {
        name: shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", command)) for name, command in pairs
    }


def same_command(command: str | list[str], role: str) -> bool:
    """Whether it is the Procfile's, wherever its program lies."""
    words = shlex.split(command) if isinstance(command, str) else command
    expanded = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in words]
    return [Path(expanded[0]).name, *expanded[1:]] == procfile()[role]


def shutdown_timeout_seconds() -> float:
    words = procfile()["worker"]
    return int(words[words.index("--worker-shutdown-timeout") + 1]) / 1000


def test_a_workers_grace_leaves_time_to_write_what_it_gives_back() -> None:
    assert GRACE_SECONDS + 5 <= shutdown_timeout_seconds() < 30


def test_the_image_runs_what_the_procfile_runs_as_web() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (command,) = (line.removeprefix("CMD ") for line in lines if line.startswith("CMD "))
    assert same_command(json.loads(command), "web")


# Render


@pytest.fixture
def blueprint() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((INFRA / "render.yaml").read_text())
    assert document.keys() == {"services"}
    return {service["name"]: service for service in document["services"]}


def test_render_runs_what_the_procfile_runs(blueprint: dict[str, dict[str, Any]]) -> None:
    web, worker = blueprint["pulsequeue-web"], blueprint["pulsequeue-worker"]
    assert (web["type"], worker["type"]) == ("web", "worker")
    assert "dockerCommand" not in web  # the image's own
    assert same_command(worker["dockerCommand"], "worker")
    for service in (web, worker):
        assert (ROOT / service["dockerfilePath"]).is_file()
        assert service["maxShutdownDelaySeconds"] > shutdown_timeout_seconds()


def test_render_checks_nothing_that_a_restart_does_not_mend(
    blueprint: dict[str, dict[str, Any]],
) -> None:
    assert blueprint["pulsequeue-web"]["healthCheckPath"] == "/health/live"


def test_renders_broker_evicts_nothing_and_is_closed_to_the_outside(
    blueprint: dict[str, dict[str, Any]],
) -> None:
    store = blueprint["pulsequeue-redis"]
    assert (store["type"], store["maxmemoryPolicy"]) == ("keyvalue", "noeviction")
    assert store["ipAllowList"] == []


def test_render_sets_what_there_is_and_refers_to_what_there_is(
    blueprint: dict[str, dict[str, Any]],
) -> None:
    for service in blueprint.values():
        variables = {v["key"]: v for v in service.get("envVars", [])}
        assert variables.keys() <= SETTINGS
        for variable in variables.values():
            source = variable.get("fromService")
            if source is not None:
                assert blueprint[source["name"]]["type"] == source["type"]
                keys = {v["key"] for v in blueprint[source["name"]].get("envVars", [])}
                assert source.get("envVarKey") in keys | {None}
        if service["type"] != "keyvalue":
            assert {"MONGODB_URI", "REDIS_URL"} <= variables.keys()


# Railway


@pytest.mark.parametrize("role", ["web", "worker"])
def test_railway_runs_what_the_procfile_runs_and_lets_it_end(role: str) -> None:
    service = tomllib.loads((INFRA / f"railway.{role}.toml").read_text())
    assert service.keys() == {"build", "deploy"}
    deploy = service["deploy"]
    assert same_command(deploy["startCommand"], role)
    assert type(deploy["drainingSeconds"]) is int  # a text is refused by Railway's parser
    assert deploy["drainingSeconds"] > shutdown_timeout_seconds()
    assert (ROOT / service["build"]["dockerfilePath"]).is_file()


# systemd

UNITS = ["pulsequeue-web.service", "pulsequeue-worker@.service"]


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(INFRA / "systemd" / name)
    return parser


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_what_the_procfile_runs_and_comes_back(name: str) -> None:
    service = unit(name)["Service"]
    role = "web" if "web" in name else "worker"
    assert same_command(service["ExecStart"], role)
    assert service["Restart"] == "always"
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > shutdown_timeout_seconds()


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_can_do_little_but_its_work(name: str) -> None:
    service = unit(name)["Service"]
    assert service["User"] == "pulsequeue"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on PATH")
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    text = (INFRA / "systemd" / name).read_text()
    here = text.replace("/opt/pulsequeue/.venv/bin", str(Path(sys.executable).parent))
    copy = tmp_path / name.replace("@.", "@1.")
    copy.write_text(here.replace("/opt/pulsequeue", str(ROOT)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    about_us = [line for line in done.stderr.splitlines() if copy.name in line]
    assert (done.returncode, about_us) == (0, []), done.stderr


def test_the_units_environment_names_settings() -> None:
    lines = (INFRA / "systemd" / "pulsequeue.env.example").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    assert names <= SETTINGS


# Compose


@pytest.fixture
def compose() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
        "services"
    ]
    return services


def test_composes_worker_runs_what_the_procfile_runs_and_can_be_scaled(
    compose: dict[str, dict[str, Any]],
) -> None:
    worker = compose["worker"]
    assert same_command(worker["command"], "worker")
    assert "container_name" not in worker
    assert "ports" not in worker


def test_compose_publishes_on_this_host_alone_unless_told_otherwise(
    compose: dict[str, dict[str, Any]],
) -> None:
    """A published port passes the host's firewall, and the API asks nobody who they are."""
    published = {name: service["ports"] for name, service in compose.items() if "ports" in service}
    assert published == {"web": ["${PUBLISH_ADDRESS:-127.0.0.1}:${PORT:-8000}:8000"]}


@pytest.mark.parametrize("name", ["web", "worker"])
def test_a_container_has_no_rights_and_time_to_end(
    compose: dict[str, dict[str, Any]], name: str
) -> None:
    service = compose[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert int(service["stop_grace_period"].removesuffix("s")) > shutdown_timeout_seconds()


def test_composes_redis_keeps_what_it_has_and_evicts_nothing(
    compose: dict[str, dict[str, Any]],
) -> None:
    words = compose["redis"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
