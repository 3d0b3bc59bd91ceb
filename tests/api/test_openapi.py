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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from falcon import inspect
from jsonschema_rs import Draft202012Validator

import actors
from service.api.openapi import description
from service.api.openapi_operations import OPERATIONS
from service.app import create_app
from service.catalog import catalog
from service.clock import ServerClock
from service.settings import Settings
from service.store import JobStore, Stores
from tests.api.server import EVENT, ROOT, Web, running_web
from tests.factories import failed, make_catalog

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


def test_it_is_valid_openapi(described: dict[str, Any]) -> None:
    """By the meta-schema of OpenAPI 3.1, which schemathesis carries."""
    import schemathesis  # here: it takes long, and every process of a run reads this module

    schemathesis.openapi.from_dict(described).validate()


def test_generators_need_no_names_of_their_own(described: dict[str, Any]) -> None:
    """An object or an enum inside of another schema gets an ugly name, or a clashing one."""
    schemas = described["components"]["schemas"]
    ours = {n: s for n, s in schemas.items() if not n.startswith("Payload.")}
    nameless = [at for name, schema in ours.items() for at in _nameless(schema, name)]
    nameless += [at for path, item in described["paths"].items() for at in _nameless(item, path)]
    assert nameless == []


def _nameless(node: Any, at: str, is_top: bool = True) -> list[str]:
    """Where enums and objects of known members are, but for `node` itself."""
    if isinstance(node, list):
        return [found for i, one in enumerate(node) for found in _nameless(one, f"{at}/{i}", False)]
    if not isinstance(node, dict):
        return []
    is_one = "enum" in node or isinstance(node.get("properties"), dict)
    found = [at] if is_one and not is_top else []
    for name, inner in node.items():
        if name == "properties":
            for member, schema in inner.items():
                found += _nameless(schema, f"{at}/{member}", False)
        elif name not in {"not", "example"}:
            found += _nameless(inner, f"{at}/{name}", False)
    return found


def test_numbers_say_how_large_they_get(described: dict[str, Any]) -> None:
    """Without a format, generators for Go and Java take 32 bits."""
    sizes = {"integer": "int64", "number": "double"}
    for schema in _all_schemas(described["components"]["schemas"]):
        kinds = {schema.get("type")} if isinstance(schema.get("type"), str) else set(schema["type"])
        for kind in kinds & sizes.keys():
            assert schema["format"] == sizes[kind], schema


def _all_schemas(node: Any) -> Iterator[dict[str, Any]]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for one in inner:
        yield from _all_schemas(one)
    if isinstance(node, dict) and isinstance(node.get("type"), str | list):
        yield node


def test_every_event_type_has_its_payload(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    mapping = schemas["NewEvent"]["discriminator"]["mapping"]
    assert mapping.keys() >= {"simulate", "webhook"}
    assert schemas["Payload.simulate"]["properties"].keys() >= {"duration_ms", "outcome"}
    assert schemas["Payload.simulate"]["additionalProperties"] is False
    assert schemas["NewEvent.simulate"]["properties"]["type"] == {
        "type": "string",
        "const": "simulate",
    }


def test_a_type_of_ones_own_is_described_too(settings: Settings) -> None:
    schemas = description(make_catalog(), settings.max_batch_events)["components"]["schemas"]
    assert schemas["Payload.email"]["additionalProperties"] is True


def test_examples_fit_their_schemas(described: dict[str, Any]) -> None:
    for path in described["paths"].values():
        for operation in path.values():
            content = operation.get("requestBody", {}).get("content", {})
            if body := content.get("application/json"):
                _validator(described, body["schema"]).validate(body["example"])


def test_answers_fit_their_schemas(web: Web, jobs: JobStore, described: dict[str, Any]) -> None:
    accepted = web.post()
    event_id = accepted.json()["id"]
    keyed = EVENT | {"idempotency_key": "once"}
    wants_json = {"Accept": "application/json"}
    answers = [
        ("Accepted", accepted),
        ("Event", web.get(event_id)),
        ("Event", web.get(failed(jobs)["_id"])),
        ("EventPage", web.http.get("/events?limit=5")),
        ("BatchResults", web.http.post("/events/batch", json={"events": [keyed, keyed, {}]})),
        ("Cancelled", web.http.post("/events/cancel", json={"type": "simulate", "dry_run": True})),
        ("Retried", web.http.post("/events/retry", json={"type": "simulate", "dry_run": True})),
        ("Schedule", web.http.put("/schedules/a", json={"every_seconds": 9, "event": EVENT})),
        ("SchedulePage", web.http.get("/schedules")),
        ("Accepted", web.http.post("/schedules/a/run")),
        ("Problem", web.post({})),
        ("Health", web.http.get("/health")),
        ("HealthStatus", web.http.get("/health/ready")),
        ("Metrics", web.http.get("/metrics", headers=wants_json)),
        ("Description", web.http.get("/openapi.json")),
    ]
    for name, answer in answers:
        schema = {"$ref": f"#/components/schemas/{name}"}
        _validator(described, schema).validate(answer.json())


@pytest.mark.parametrize(
    ("name", "statuses"),
    [("RetryMany", ("failed", "pending")), ("CancelMany", ("pending", "failed"))],
)
def test_a_change_by_filter_needs_a_condition(
    web: Web, described: dict[str, Any], name: str, statuses: tuple[str, str]
) -> None:
    path = f"/events/{name.removesuffix('Many').lower()}"
    schema = _validator(described, {"$ref": f"#/components/schemas/{name}"})
    bodies: list[tuple[dict[str, Any], bool]] = [
        ({}, False),
        ({"dry_run": True}, False),
        ({"status": statuses[0]}, True),
        ({"type": "simulate", "dry_run": True}, True),
        ({"status": statuses[1]}, False),
        ({"group": "a"}, False),
        ({"group": "a", "type": "simulate"}, True),
        ({"group": "", "type": "simulate"}, False),
    ]
    for body, fits in bodies:
        assert schema.is_valid(body) is fits, body
        assert web.http.post(path, json=body).status_code == (200 if fits else 422), body


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
