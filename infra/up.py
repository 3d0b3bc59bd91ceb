"""Starts everything on this machine, shows one event's way, stays until Ctrl-C.

`./infra/up` runs this in the virtual environment that it has made.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import httpx

from infra.leftovers import end_leftovers, end_orphans
from infra.logs import LogFollower, readable
from infra.servers import MongoServer, RedisServer, Server, ServerError, can_listen, last_lines
from infra.supervision import SERVERS, Program, Supervisor, programs_of
from service.errors import SettingError
from service.settings import Settings, without_password

LOCAL = Path(".local").absolute()
LOGS = LOCAL / "log"
START_SECONDS = 60  # for the health check to be content
EVENT_SECONDS = 30  # for the first event to be completed
EVENT = {"type": "simulate", "payload": {"duration_ms": 300, "result": {"hello": "world"}}}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StartError(Exception):
    """Something did not come up; the message says what, and ends with its last log lines."""


class Stopped(BaseException):
    """Ctrl-C, SIGTERM, or the terminal was closed."""


def say(text: str = "") -> None:
    """To whoever watches, if anybody still does."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> int:
    for number in SIGNALS:
        signal.signal(number, _stop_once)
    try:
        with only_one():
            run()
    except Stopped:
        say("Stopped.")
    except (StartError, ServerError) as failure:
        say(f"\n{failure}")
        return 1
    return 0


def _stop_once(_number: int, _frame: object) -> NoReturn:
    for number in SIGNALS:  # a second Ctrl-C changes nothing: the stop is under way
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


@contextmanager
def only_one() -> Iterator[None]:
    """Holds the data folder, after ending what an `infra/up` that was killed has left."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOCAL / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StartError(f"Already running here, as process {lock.read()}.") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        end_leftovers(LOCAL, say)
        yield


def run() -> None:
    """Everything from the first server to the last."""
    port = free_web_port()
    servers, env = needed_servers()
    own = [Program(SERVERS, _short(s), s.command(), s.log) for s in servers]
    shown = programs_of(Path("Procfile"), LOGS)
    followers = {program.name: LogFollower(program.log) for program in shown}
    supervisor = Supervisor(LOCAL, own + shown, {**env, "PORT": str(port)})
    try:
        start(supervisor, servers, shown, port)
        introduce(port, env)
        stay(supervisor, followers)
    finally:
        stop(supervisor, followers)


def free_web_port() -> int:
    """PORT. Raises StartError where it, or another setting, is wrong, or where it is taken."""
    try:
        port = Settings.from_env().port
    except SettingError as error:
        raise StartError(f"setting {error}") from None
    if not can_listen("0.0.0.0", port):  # noqa: S104  what the web process will do
        raise StartError(
            f"Port {port} is taken by another program. "
            f"Choose one with PORT: PORT={port + 1} ./infra/up"
        )
    return port


def needed_servers() -> tuple[list[Server], dict[str, str]]:
    """The servers whose URLs are not set, and the environment with the URLs of them all."""
    env = dict(os.environ)
    servers: list[Server] = []
    if not env.get("REDIS_URL"):
        servers.append(RedisServer(LOCAL / "redis", log=LOGS / "redis.log"))
        env["REDIS_URL"] = servers[-1].url
    if not (env.get("MONGODB_URI") or env.get("MONGO_URL")):
        servers.append(MongoServer(LOCAL / "mongodb", log=LOGS / "mongodb.log"))
        env["MONGODB_URI"] = servers[-1].url
    return servers, env


def start(supervisor: Supervisor, servers: list[Server], shown: list[Program], port: int) -> None:
    """Servers first, then the Procfile's processes. Raises StartError or ServerError."""
    supervisor.start()
    for server in servers:
        supervisor.start_program(_short(server))
    for server in servers:
        name = _short(server)
        server.wait_ready(partial(supervisor.failed, name))
        say(f"  {name:<9} {server.url}")
    for program in shown:
        supervisor.start_program(program.name)
    wait_for_health(supervisor, shown, port)
    for program in shown:
        at = f"  http://localhost:{port}" if program.name == "web" else ""
        say(f"  {program.name:<9} process {supervisor.pids()[program.name]}{at}")


def wait_for_health(supervisor: Supervisor, shown: list[Program], port: int) -> None:
    """Until the web answers that all is well, a worker included."""
    deadline = time.monotonic() + START_SECONDS
    with client(port) as web:
        while not is_well(health := ask_health(web)):
            for program in shown:
                if supervisor.failed(program.name):
                    raise StartError(f"{program.name} does not come up. {_end_of(program)}")
            if time.monotonic() > deadline:
                ends = "\n".join(_end_of(program) for program in shown)
                raise StartError(f"Not healthy after {START_SECONDS} s: {health}\n{ends}")
            time.sleep(0.1)


def ask_health(web: httpx.Client) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = web.get("/health").json()
    except (httpx.HTTPError, ValueError) as error:
        return {"status": f"no answer: {error}"}
    return answer


def is_well(health: dict[str, Any]) -> bool:
    workers = health.get("checks", {}).get("workers", {})
    return health.get("status") == "ok" and (workers.get("alive") or 0) > 0


def introduce(port: int, env: dict[str, str]) -> None:
    """Shows one event's way through, and how to send the next."""
    with client(port) as web:
        event_id = show_one_event(web)
    base = f"http://localhost:{port}"
    body = shlex.quote(json.dumps(EVENT))
    say(f"""
Send the next one:
  curl -i {base}/events -H 'Content-Type: application/json' -d {body}
Read it:
  curl {base}/events/{event_id}
See also {base}/health, {base}/metrics and {base}/openapi.json
In the Mongo shell: {without_password(env.get("MONGODB_URI") or env["MONGO_URL"])}
Logs are in {LOGS}. Ctrl-C stops everything; the data stays in {LOCAL}.
""")


def show_one_event(web: httpx.Client) -> str:
    """Sends a real event and prints each status as it comes; gives its id."""
    say(f"\nOne event: POST /events {json.dumps(EVENT)}")
    begin = time.monotonic()
    event = web.post("/events", json=EVENT).raise_for_status().json()
    event_id, seen = str(event["id"]), ""
    while event["status"] not in {"completed", "failed", "cancelled"}:
        seen = _show_change(event, seen, begin)
        if time.monotonic() > begin + EVENT_SECONDS:
            raise StartError(f"Event {event_id} is still {seen} after {EVENT_SECONDS} s.")
        time.sleep(0.02)
        event = web.get(f"/events/{event_id}").raise_for_status().json()
    _show_change(event, seen, begin)
    if event["status"] != "completed":
        raise StartError(f"Event {event_id} ended as {event['status']}: {event.get('error')}")
    return event_id


def _show_change(event: dict[str, Any], seen: str, begin: float) -> str:
    status = str(event["status"])
    if status != seen:
        result = json.dumps(event["result"]) if status == "completed" else event["id"]
        say(f"  {1000 * (time.monotonic() - begin):6.0f} ms  {status:<11} {result}")
    return status


def stay(supervisor: Supervisor, followers: dict[str, LogFollower]) -> None:
    """Shows log lines and restarts until a signal ends it."""
    known = supervisor.pids()
    while supervisor.running:
        show_logs(followers)
        known = watch(supervisor, known)
        time.sleep(0.2)
    raise StartError(f"supervisord has died: see {LOCAL / 'supervisord.log'}")


def watch(supervisor: Supervisor, known: dict[str, int]) -> dict[str, int]:
    """Tells of processes that were replaced; tries again with those that were given up."""
    try:
        pids = supervisor.pids()
    except OSError:  # supervisord is gone: `stay` sees it next
        return known
    for name, pid in pids.items():
        if pid and pid != known[name]:
            say(f"{name} died and was started again, as process {pid}")
            end_orphans(LOCAL, known[name])
        if not pid and supervisor.given_up(name):
            supervisor.start_program(name)
    return {name: pid or known[name] for name, pid in pids.items()}


def show_logs(followers: dict[str, LogFollower]) -> None:
    for name, follower in followers.items():
        for line in follower.new_lines():
            say(f"{name:<7}| {readable(line)}")


def stop(supervisor: Supervisor, followers: dict[str, LogFollower]) -> None:
    """The Procfile's processes first, the servers last, and nothing left behind."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    say("\nStopping ...")
    supervisor.begin_stop()
    while supervisor.running:
        show_logs(followers)
        time.sleep(0.1)
    show_logs(followers)
    end_leftovers(LOCAL, say)
    supervisor.clean_up()


def client(port: int) -> httpx.Client:
    # A proxy of the environment has no business on loopback.
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5, trust_env=False)


def _short(server: Server) -> str:
    return server.name.lower()


def _end_of(program: Program) -> str:
    return f"The end of {program.log}:\n{last_lines(program.log)}"


if __name__ == "__main__":
    sys.exit(main())
