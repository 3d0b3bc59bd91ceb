"""Every setting, in one place. `python -m service.settings` checks and prints them.

Read once, at start, from the environment. A value that isn't allowed stops the start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from service.errors import SettingError
from service.outbound.hosts import allowed_hosts
from service.outbound.signing import secrets


def _setting(
    default: Any,
    help: str,  # noqa: A002
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    schemes: tuple[str, ...] | None = None,
    also: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    meta = {
        "help": help,
        "low": low,
        "high": high,
        "choices": choices,
        "schemes": schemes,
        "also": also,
        "secret": secret,
    }
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True)
class Settings:
    """The name of a field, in capitals, is the name of its environment variable."""

    port: int = _setting(8000, "port that the web process listens on", low=1, high=65535)
    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        "Redis, the broker",
        schemes=("redis", "rediss", "unix"),
        secret=True,
    )
    mongodb_uri: str = _setting(
        "mongodb://127.0.0.1:27017/pulsequeue",
        "MongoDB, the source of truth; the path names the database",
        schemes=("mongodb", "mongodb+srv"),
        also=("MONGO_URL",),
        secret=True,
    )
    web_concurrency: int = _setting(1, "web processes", low=1, high=64)
    log_level: str = _setting(
        "info", "least level that is logged", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _setting(
        "auto",
        "json lines, console colours, or auto: by whether stdout is a terminal",
        choices=("auto", "json", "console"),
    )
    event_type_modules: str = _setting(
        "", "more modules with event types, comma-separated, importable by name"
    )
    simulate_faults: bool = _setting(False, "allow `simulate` to hang and to crash its process")

    max_body_bytes: int = _setting(
        1_048_576, "largest body of one event", low=1_024, high=8_388_608
    )
    max_batch_bytes: int = _setting(
        16_777_216, "largest body of a batch", low=1_024, high=268_435_456
    )
    max_batch_events: int = _setting(1_000, "most events of a batch", low=1, high=10_000)
    max_nesting: int = _setting(64, "deepest nesting of a body", low=2, high=90)
    max_backlog_jobs: int = _setting(
        10_000_000, "pending jobs at which POST answers 503; 0: no limit", low=0
    )
    body_timeout_seconds: float = _setting(
        10.0, "longest wait for a request's headers, and then for its body", low=0.1, high=300
    )
    max_waiters: int = _setting(
        1_000, "most requests that wait by `Prefer: wait`, per web process", low=0, high=100_000
    )

    mongodb_timeout_ms: int = _setting(
        5_000, "longest wait for MongoDB's answer", low=100, high=60_000
    )
    redis_timeout_ms: int = _setting(500, "longest wait for Redis's answer", low=10, high=10_000)
    redis_window_messages: int = _setting(
        10_000,
        "most hints of one event type held in Redis; those of all types together are at most ten "
        "times as many, or 64 a type where that is more",
        low=10,
        high=1_000_000,
    )

    async_concurrency: int = _setting(
        2_000, "jobs of asynchronous handlers at once, per worker process", low=1, high=100_000
    )
    max_claimed_bytes: int = _setting(
        134_217_728,
        "memory that claimed jobs, and results not yet written, may take by estimate, per worker "
        "process",
        low=1_048_576,
        high=8_589_934_592,
    )
    heartbeat_seconds: float = _setting(2.0, "time between heartbeats", low=0.1, high=60)
    lease_seconds: float = _setting(
        8.0, "age of a heartbeat at which its worker counts as dead", low=0.5, high=600
    )
    sweep_seconds: float = _setting(0.5, "time between sweeps", low=0.05, high=60)
    shutdown_grace_seconds: float = _setting(
        15.0,
        "how long a stopping worker lets its jobs finish before giving them back",
        low=0,
        high=3600,
    )
    stuck_grace_seconds: float = _setting(
        10.0,
        "how far beyond its time limit a thread may be stuck before its process exits",
        low=0.5,
        high=3600,
    )
    history_limit: int = _setting(100, "attempts kept in a job's history", low=1, high=1_000)
    retention_completed_seconds: int = _setting(
        7 * 86_400, "how long completed jobs are kept; 0: for ever", low=0
    )
    retention_failed_seconds: int = _setting(
        30 * 86_400, "how long failed jobs are kept; 0: for ever", low=0
    )
    retention_cancelled_seconds: int = _setting(
        7 * 86_400, "how long cancelled jobs are kept; 0: for ever", low=0
    )

    webhook_allowed_hosts: str = _setting(
        "",
        "hosts that `webhook` may deliver to, comma-separated; `*.example.com` for subdomains, "
        "`example.com:8443` for a port other than 80 and 443",
    )
    webhook_allow_private_networks: bool = _setting(
        False,
        "let `webhook` reach allowed hosts on this machine and in private networks (loopback, "
        "RFC 1918, fc00::/7): for development; link-local and metadata addresses stay refused",
    )
    webhook_secrets: str = _setting(
        "", "signing secrets (whsec_...), comma-separated, newest first", secret=True
    )
    webhook_timeout_seconds: float = _setting(
        15.0, "longest wait for a receiver's answer", low=0.1, high=300
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Raises `SettingError` for a value that isn't allowed."""
        values = {}
        for f in fields(cls):
            for name in (f.name.upper(), *f.metadata["also"]):
                if environ.get(name, "") != "":
                    values[f.name] = _parsed(name, environ[name], f.type, f.metadata)
                    break
        settings = cls(**values)
        if settings.lease_seconds < 2 * settings.heartbeat_seconds:
            raise SettingError("LEASE_SECONDS: must be at least twice HEARTBEAT_SECONDS")
        allowed_hosts(settings.webhook_allowed_hosts)
        secrets(settings.webhook_secrets)
        return settings

    @property
    def database(self) -> str:
        """The database that the URI's path names."""
        return urlsplit(self.mongodb_uri).path.strip("/") or "pulsequeue"

    def shown(self) -> dict[str, str]:
        """Effective values by environment name, passwords and secrets hidden."""
        return {f.name.upper(): _shown(getattr(self, f.name), f.metadata) for f in fields(self)}


def _parsed(name: str, text: str, kind: Any, meta: Mapping[str, Any]) -> Any:
    parsers: dict[str, Callable[[str], Any]] = {
        "int": int,
        "float": float,
        "bool": _bool,
        "str": str,
    }
    try:
        value = parsers[kind](text.strip())
    except ValueError:
        raise SettingError(f"{name}: {text!r} is not {_rule(kind, meta)}") from None
    if meta["choices"] and isinstance(value, str):
        value = value.lower()
    if not _allowed(value, meta):
        shown = "the value given" if meta["secret"] else repr(text)
        raise SettingError(f"{name}: {shown} is not {_rule(kind, meta)}")
    return value


def _bool(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


def _allowed(value: Any, meta: Mapping[str, Any]) -> bool:
    if meta["choices"]:
        return value in meta["choices"]
    if meta["schemes"]:
        return any(value.startswith(f"{scheme}://") for scheme in meta["schemes"])
    low_ok = meta["low"] is None or value >= meta["low"]
    return bool(low_ok and (meta["high"] is None or value <= meta["high"]))


def _rule(kind: str, meta: Mapping[str, Any]) -> str:
    if meta["choices"]:
        return "one of " + ", ".join(meta["choices"])
    if meta["schemes"]:
        return "a URL that starts with " + " or ".join(f"{s}://" for s in meta["schemes"])
    what = {"int": "a whole number", "float": "a number", "bool": "0 or 1", "str": "a text"}[kind]
    low, high = meta["low"], meta["high"]
    if low is not None and high is not None:
        return f"{what} from {low} to {high}"
    return what if low is None else f"{what} of at least {low}"


def _shown(value: Any, meta: Mapping[str, Any]) -> str:
    if not meta["secret"]:
        return str(value)
    if not meta["schemes"]:
        return "(set)" if value else ""
    return without_password(str(value))


def without_password(url: str) -> str:
    """The URL as it may be logged."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}"))


def table() -> str:
    """The settings as a Markdown table, for docs/operating.md."""
    rows = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for f in fields(Settings):
        default = (
            f"`{int(f.default) if isinstance(f.default, bool) else f.default}`"
            if f.default != ""
            else ""
        )
        rule = (
            ""
            if f.type == "str" and not f.metadata["choices"]
            else f" ({_rule(str(f.type), f.metadata)})"
        )
        rows.append(f"| `{f.name.upper()}` | {default} | {f.metadata['help']}{rule} |")
    return "\n".join(rows)


def main() -> None:
    """Prints the effective settings (a bad one: exit code 1); `--table`: the documented table."""
    if sys.argv[1:] == ["--table"]:
        print(table())
        return
    try:
        settings = Settings.from_env()
    except SettingError as error:
        sys.exit(f"setting {error}")
    for name, value in settings.shown().items():
        print(f"{name}={value}")


if __name__ == "__main__":
    main()
