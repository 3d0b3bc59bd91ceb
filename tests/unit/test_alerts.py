"""The alerting rules: they name what `/metrics` exports, and fire when they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.api import prometheus
from service.metrics.totals import Gauges, Snapshot

ROOT = Path(__file__).parents[2]
RULES = ROOT / "infra" / "alerts.yml"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}
OF_PROMETHEUS_ITSELF = {"instance", "job", "le", "__name__"}
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool (of Prometheus) is not on PATH"
)


def exported() -> dict[str, set[str]]:
    """Every sample that /metrics can have, with its labels' names."""
    histogram = {"b": {"0": 1}, "sum": 0.1, "count": 1}
    counters = {
        "email": {
            "received": 1,
            "completed": 1,
            "retried": 1,
            "cancelled": 1,
            "failed": {"error": 1},
            "wait": histogram,
            "run": histogram,
        },
        "_worker": {"fenced": 1, "junk": 1, "rescued": 1},
        "_http": {"POST /events 202": histogram},
    }
    of_queue = {"default": 1}
    gauges = Gauges(
        of_queue,
        of_queue,
        {"default": 1.0},
        processing=1,
        sweep_age_seconds=0.5,
        schedules_late_seconds=0.0,
        schedule_last_run={"nightly": 1.0},
    )
    snapshot = Snapshot(counters, gauges, 1, {"mongodb": True, "redis": True})
    text, _ = prometheus.text(snapshot, "text/plain")
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_names_only_what_is_exported(alert: str) -> None:
    known = exported()
    expression = ALERTS[alert]["expr"]
    names = set(re.findall(r"\bpulsequeue_\w+", expression))
    assert names
    assert names <= known.keys()
    for name, matchers in re.findall(r"(pulsequeue_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= known[name]
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    labels = {label.strip() for group in grouped for label in group.split(",")}
    assert labels <= OF_PROMETHEUS_ITSELF.union(*(known[name] for name in names))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_takes_one_process_for_all(alert: str) -> None:
    """Every web process shows the whole system's numbers: adding them up would count twice."""
    expression = ALERTS[alert]["expr"]
    for found in re.finditer(r"\bsum\b(?:\s+by\s*\([^)]*\))?\s*\(\s*(\w+)", expression):
        assert found.group(1) == "max"


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (page, anchor) == ("docs/operating.md", alert.lower())


# by Prometheus' own tool


@dataclass(frozen=True)
class Case:
    """Samples a minute apart, from two web processes, and whether the alert fires in the end."""

    alert: str
    fires: bool
    minutes: int
    series: dict[str, str]


def both(series: str, values: str) -> dict[str, str]:
    """The same series from two web processes."""
    name, _, labels = series.removesuffix("}").partition("{")
    more = f",{labels}" if labels else ""
    return {f'{name}{{instance="{process}"{more}}}': values for process in ("a", "b")}


def up(dependency: str, values: str) -> dict[str, str]:
    return both(f'pulsequeue_up{{dependency="{dependency}"}}', values)


def failed(values: str, reason: str = "error") -> dict[str, str]:
    return both(f'pulsequeue_jobs_failed_total{{type="email",reason="{reason}"}}', values)


def received(values: str) -> dict[str, str]:
    return both('pulsequeue_jobs_received_total{type="email"}', values)


def answered(status: int, values: str) -> dict[str, str]:
    labels = f'method="GET",route="/events",status="{status}"'
    return both(f"pulsequeue_http_request_seconds_count{{{labels}}}", values)


def accepted(**by_bound: str) -> dict[str, str]:
    bounds = {"to_1": "1", "to_2": "2.5", "to_inf": "+Inf"}
    series: dict[str, str] = {}
    for name, values in by_bound.items():
        labels = f'method="POST",route="/events",status="202",le="{bounds[name]}"'
        series |= both(f"pulsequeue_http_request_seconds_bucket{{{labels}}}", values)
    return series


OLDEST = 'pulsequeue_oldest_pending_seconds{queue="default"}'
RESCUED, FENCED, JUNK = (f"pulsequeue_worker_{n}_total" for n in ("rescued", "fenced", "junk"))
CASES = [
    Case("PulseQueueNotScraped", True, 6, {}),
    Case("PulseQueueNotScraped", False, 6, up("redis", "1x20")),
    Case("PulseQueueMongoDBUnreachable", True, 3, up("mongodb", "0x9")),
    Case("PulseQueueMongoDBUnreachable", False, 3, up("mongodb", "1x9") | up("redis", "0x9")),
    Case("PulseQueueRedisUnreachable", True, 4, up("redis", "0x9")),
    Case("PulseQueueRedisUnreachable", False, 4, up("redis", "1x9") | up("mongodb", "0x9")),
    Case("PulseQueueNoWorkers", True, 3, both("pulsequeue_workers_alive", "0x9")),
    Case("PulseQueueNoWorkers", False, 3, both("pulsequeue_workers_alive", "2x9")),
    Case("PulseQueueSweepStalled", True, 3, both("pulsequeue_sweep_age_seconds", "60+60x9")),
    Case("PulseQueueSweepStalled", False, 3, both("pulsequeue_sweep_age_seconds", "1x9")),
    Case("PulseQueueSchedulesLate", True, 3, both("pulsequeue_schedules_late_seconds", "60x9")),
    Case("PulseQueueSchedulesLate", False, 3, both("pulsequeue_schedules_late_seconds", "9x9")),
    Case("PulseQueueBacklogOld", True, 8, both(OLDEST, "400x20")),
    Case("PulseQueueBacklogOld", False, 8, both(OLDEST, "10x20")),
    Case("PulseQueueFailures", True, 30, failed("0+2x40") | received("0+10x40")),
    Case("PulseQueueFailures", False, 30, failed("0+2x40") | received("0+99x40")),
    Case("PulseQueueFailures", False, 20, failed("0 0 3x40") | received("0 0 3x40")),
    Case("PulseQueueCrashes", True, 5, failed("0 0 1x20", "crash")),
    Case("PulseQueueCrashes", False, 5, failed("0+5x20")),
    Case("PulseQueueRescues", True, 30, both(RESCUED, "0+10x40")),
    Case("PulseQueueRescues", False, 30, both(RESCUED, "0+1x40")),
    Case("PulseQueueFenced", True, 30, both(FENCED, "0+5x40")),
    Case("PulseQueueFenced", False, 30, both(FENCED, "7x40")),
    Case("PulseQueueJunk", True, 5, both(JUNK, "0 0 1x20")),
    Case("PulseQueueJunk", False, 5, both(JUNK, "3x20")),
    Case("PulseQueueServerErrors", True, 20, answered(503, "0+60x40")),
    Case("PulseQueueServerErrors", False, 20, answered(404, "0+60x40") | answered(503, "0+3x40")),
    Case(
        "PulseQueueSlowAccept", True, 30, accepted(to_1="0+9x40", to_2="0+10x40", to_inf="0+10x40")
    ),
    Case("PulseQueueSlowAccept", False, 30, accepted(to_1="0+10x40", to_inf="0+10x40")),
]


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    for fires in (True, False):
        assert {case.alert for case in CASES if case.fires is fires} == ALERTS.keys()


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", str(RULES))


@needs_promtool
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    tests = tmp_path / "tests.yml"
    document = {"rule_files": [str(RULES)], "tests": [as_test(case) for case in CASES]}
    tests.write_text(yaml.safe_dump(document))
    promtool("test", "rules", str(tests))


def as_test(case: Case) -> dict[str, Any]:
    """The case as promtool wants it."""
    firing = {
        "expr": f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})',
        "eval_time": f"{case.minutes}m",
        "exp_samples": [{"labels": "{}", "value": 1}] if case.fires else [],
    }
    return {
        "interval": "1m",
        "input_series": [{"series": s, "values": v} for s, v in case.series.items()],
        "promql_expr_test": [firing],
    }
