"""/openapi.json says what the API does. All of it, against a running web, is tried by

    SCHEMATHESIS_HOOKS=tests.api.schemathesis_hooks \\
        schemathesis --config-file tests/api/schemathesis.toml \\
        run http://127.0.0.1:8000/openapi.json --checks all --max-examples 700
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from falcon import inspect
from jsonschema_rs import Draft202012Validator

import actors
from service.api.openapi import description
from service.api.operations_table import OPERATIONS
from service.app import create_app
from service.catalog import catalog
from service.clock import ServerClock
from service.settings import Settings
from service.store import Stores
from tests.api.server import ROOT, Web, running_web
from tests.factories import make_catalog

METHODS_WITHOUT_AN_ENTRY = {"HEAD", "OPTIONS"}


@pytest.fixture(scope="module")
def described(web: Web) -> dict[str, Any]:
    return dict(web.http.get("/openapi.json").json())


def test_every_route_is_described_and_nothing_else(settings: Settings, database: Any) -> None:
    stores = Stores(database, settings)
    app = create_app(settings, stores, actors.broker, catalog, ServerClock())
    routed = {
        (method.method, route.path)
        for route in inspect.inspect_app(app).routes
        for method in route.methods
        if not method.internal and method.method not in METHODS_WITHOUT_AN_ENTRY
    }
    assert routed == {(o.method.upper(), o.path) for o in OPERATIONS}


def test_references_lead_somewhere(described: dict[str, Any]) -> None:
    text = str(described)
    names = set(re.findall(r"#/components/schemas/([\w.-]+)", text))
    assert names <= described["components"]["schemas"].keys()
    assert described["openapi"] == "3.1.0"


def test_every_event_type_has_its_payload(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    mapping = schemas["NewEvent"]["discriminator"]["mapping"]
    assert mapping.keys() >= {"simulate", "webhook"}
    assert schemas["Payload.simulate"]["properties"].keys() >= {"duration_ms", "outcome"}
    assert schemas["Payload.simulate"]["additionalProperties"] is False
    assert schemas["NewEvent.simulate"]["properties"]["type"] == {"const": "simulate"}


def test_a_type_of_ones_own_is_described_too(settings: Settings) -> None:
    schemas = description(settings, make_catalog())["components"]["schemas"]
    assert schemas["Payload.email"]["additionalProperties"] is True


def test_examples_fit_their_schemas(described: dict[str, Any]) -> None:
    for path in described["paths"].values():
        for operation in path.values():
            content = operation.get("requestBody", {}).get("content", {})
            if body := content.get("application/json"):
                _validator(described, body["schema"]).validate(body["example"])


def test_answers_fit_their_schemas(web: Web, described: dict[str, Any]) -> None:
    accepted = web.post()
    event_id = accepted.json()["id"]
    answers = {
        "Accepted": accepted,
        "Event": web.get(event_id),
        "EventPage": web.http.get("/events?limit=5"),
        "Problem": web.post({}),
        "Health": web.http.get("/health"),
        "HealthStatus": web.http.get("/health/ready"),
        "Metrics": web.http.get("/metrics", headers={"Accept": "application/json"}),
    }
    for name, answer in answers.items():
        schema = {"$ref": f"#/components/schemas/{name}"}
        _validator(described, schema).validate(answer.json())


def _validator(described: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": described["components"]})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schemathesis_finds_nothing(tmp_path: Path, web_settings: Settings) -> None:
    fresh = replace(web_settings, mongodb_uri=web_settings.mongodb_uri.replace("/api", "/fuzzed"))
    with running_web(tmp_path / "web.log", fresh) as web:
        ran = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                *("--config-file", "tests/api/schemathesis.toml"),
                *("run", f"{web.url}/openapi.json", "--checks", "all"),
                *("--max-examples", "50", "--seed", "4711", "--no-color"),
            ],
            cwd=ROOT,
            env=os.environ
            | {"SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    print(ran.stdout[-3_000:])
    assert ran.returncode == 0, ran.stdout[-5_000:]
