"""Settings: what is allowed, and what a wrong one says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields

import pytest

from service.errors import SettingError
from service.settings import Settings, table, without_password

BAD = [
    ("PORT", "0", "from 1 to 65535"),
    ("PORT", "65536", "from 1 to 65535"),
    ("PORT", "http", "a whole number"),
    ("PORT", "8000.5", "a whole number"),
    ("REDIS_URL", "localhost:6379", "redis://"),
    ("REDIS_URL", "mongodb://x", "redis://"),
    ("MONGODB_URI", "localhost", "mongodb://"),
    ("MONGO_URL", "http://x", "mongodb://"),
    ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ("LOG_FORMAT", "xml", "one of auto, json, console"),
    ("SIMULATE_FAULTS", "maybe", "0 or 1"),
    ("MAX_BODY_BYTES", "1MB", "a whole number"),
    ("MAX_NESTING", "1000", "from 2 to 90"),
    ("BODY_TIMEOUT_SECONDS", "nan", "a number"),
    ("BODY_TIMEOUT_SECONDS", "inf", "a number"),
    ("LEASE_SECONDS", "-1", "a number from"),
    ("MAX_BACKLOG_JOBS", "-1", "at least 0"),
    ("RETENTION_FAILED_SECONDS", "-5", "at least 0"),
]


@pytest.mark.parametrize(("name", "value", "rule"), BAD)
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(
    name: str, value: str, rule: str
) -> None:
    with pytest.raises(SettingError) as refused:
        Settings.from_env({name: value})
    assert str(refused.value).startswith(f"{name}: ")
    assert rule in str(refused.value)


def test_every_numeric_setting_refuses_a_word() -> None:
    for setting in fields(Settings):
        if setting.type in ("int", "float", "bool"):
            with pytest.raises(SettingError, match=setting.name.upper()):
                Settings.from_env({setting.name.upper(): "many"})


def test_every_default_is_allowed() -> None:
    defaults = {f.name.upper(): str(f.default) for f in fields(Settings)}
    assert Settings.from_env(defaults) == Settings()


def test_an_empty_value_is_the_default() -> None:
    assert Settings.from_env({"PORT": "", "REDIS_URL": ""}) == Settings()


def test_spaces_around_a_value_and_the_case_of_a_choice_do_not_matter() -> None:
    settings = Settings.from_env({"PORT": " 81 ", "LOG_LEVEL": "WARNING"})
    assert (settings.port, settings.log_level) == (81, "warning")


def test_railways_name_for_mongodb_is_read_too_and_ours_goes_first() -> None:
    theirs = {"MONGO_URL": "mongodb://theirs"}
    assert Settings.from_env(theirs).mongodb_uri == "mongodb://theirs"
    both = theirs | {"MONGODB_URI": "mongodb://ours"}
    assert Settings.from_env(both).mongodb_uri == "mongodb://ours"


def test_a_lease_must_outlast_a_missed_heartbeat() -> None:
    with pytest.raises(SettingError, match="LEASE_SECONDS"):
        Settings.from_env({"LEASE_SECONDS": "3", "HEARTBEAT_SECONDS": "2"})


@pytest.mark.parametrize(
    ("uri", "database"),
    [
        ("mongodb://h", "pulsequeue"),
        ("mongodb://h/", "pulsequeue"),
        ("mongodb://h/mine", "mine"),
        ("mongodb://u:p@h1,h2/mine?replicaSet=rs0", "mine"),
    ],
)
def test_the_path_of_the_uri_names_the_database(uri: str, database: str) -> None:
    assert Settings.from_env({"MONGODB_URI": uri}).database == database


# secrets


def test_no_password_is_shown() -> None:
    settings = Settings(
        redis_url="rediss://:hunter2@h:1/0",
        mongodb_uri="mongodb://me:hunter2@h1,h2/db?authSource=admin",
        webhook_secrets="whsec_hunter2",
    )
    shown = settings.shown()
    assert "hunter2" not in str(shown)
    assert shown["MONGODB_URI"] == "mongodb://me:***@h1,h2/db?authSource=admin"
    assert shown["WEBHOOK_SECRETS"] == "(set)"


@pytest.mark.parametrize("name", ["REDIS_URL", "MONGODB_URI"])
def test_a_refused_secret_is_not_repeated(name: str) -> None:
    with pytest.raises(SettingError) as refused:
        Settings.from_env({name: "https://me:hunter2@h"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://user:p@ss@h:1/0", "redis://user:***@h:1/0"),
        ("redis://:secret@h", "redis://:***@h"),
    ],
)
def test_a_url_is_logged_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


# what people see


def test_the_table_has_a_row_for_every_setting() -> None:
    rows = table().splitlines()
    assert len(rows) == 2 + len(fields(Settings))
    for setting in fields(Settings):
        assert any(row.startswith(f"| `{setting.name.upper()}` |") for row in rows)


def run_module(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.settings", *arguments],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_module_prints_what_is_in_force() -> None:
    shown = run_module(PORT="8123")
    assert shown.returncode == 0
    assert "PORT=8123" in shown.stdout.splitlines()


def test_the_module_refuses_a_bad_value_by_its_exit_code() -> None:
    refused = run_module(PORT="x")
    assert refused.returncode == 1
    assert "PORT" in refused.stderr
