"""Short runs, each with the fault that some bug needs to show itself."""

from __future__ import annotations

import signal
from collections.abc import Callable

from service.job import Hint
from tests.factories import put_hints
from tests.faults.processes import send
from tests.faults.trial import Trial
from tests.faults.waiting import eventually

Scenario = Callable[[Trial], None]


def nothing_happens(trial: Trial) -> None:
    """Fast, slow and failing events, and no fault at all."""
    events = [trial.client.post("journal.sync", {"fail_times": n % 2}) for n in range(6)]
    events += [trial.client.post("journal.async", {"duration_ms": 1_200}) for _ in range(3)]
    trial.wait_for(*events, status="completed")


def many_come_at_once(trial: Trial) -> None:
    """More than the threads of all workers, so that jobs wait for one."""
    posts = [{"type": "journal.sync", "payload": {"duration_ms": 20}} for _ in range(80)]
    trial.wait_for(*trial.client.post_batch(posts), status="completed")


def a_worker_is_killed(trial: Trial) -> None:
    event = trial.client.post("journal.async", {"duration_ms": 900})
    pid = trial.stack.wait_held(event or "")
    with trial.recorder.fault("kill", "worker", pid):
        send(pid, signal.SIGKILL)
    trial.wait_for(event, status="completed")


def a_worker_is_killed_right_after_its_work(trial: Trial) -> None:
    event = trial.client.post("journal.sync", {})
    eventually(lambda: event in trial.journal, "the handler has ended")
    for pid in [worker["pid"] for worker in trial.stack.alive()]:
        with trial.recorder.fault("kill", "worker", pid):
            send(pid, signal.SIGKILL)
    trial.wait_for(event, status="completed", within=6)


def a_worker_is_frozen_beyond_its_lease(trial: Trial) -> None:
    event = trial.client.post("journal.async", {"duration_ms": 800})
    pid = trial.stack.wait_held(event or "")
    with trial.recorder.fault("freeze", "worker", pid):
        send(pid, signal.SIGSTOP)
        trial.wait_for(event, status="completed", within=12)
        ends = len(trial.journal)
        send(pid, signal.SIGCONT)
    eventually(lambda: len(trial.journal) > ends, "the thawed handler ends")
    trial.wait_for(trial.client.post("journal.sync", {}), status="completed")
    trial.client.get(event or "")


def a_worker_is_stopped(trial: Trial) -> None:
    events = [trial.client.post("journal.async", {"duration_ms": 2_000}) for _ in range(4)]
    pid = trial.stack.wait_held(events[0] or "")
    worker = trial.stack.worker_with(pid)
    with trial.recorder.fault("term", "worker", *worker.family()):
        worker.terminate()
        eventually(lambda: worker.starts > 1 and worker.running, "it is back", within=15)
    trial.wait_for(*events, status="completed")


def the_web_is_killed(trial: Trial) -> None:
    for _ in range(5):
        trial.client.post("journal.sync", {})
    with trial.recorder.fault("kill", "web", *trial.web.family()):
        trial.stack.supervisor.kill(trial.web)
    eventually(trial.stack.api_of(trial.web).is_ready, "the web is back", within=15)


def messages_come_tenfold(trial: Trial) -> None:
    events = [trial.client.post("journal.async", {"duration_ms": 700}) for _ in range(4)]
    hints = [Hint(e, "journal.async", "default", "normal") for e in events if e]
    with trial.recorder.fault("duplicate", "redis"):
        for _ in range(10):
            put_hints(trial.stack.redis_client, hints)
    trial.wait_for(*events, status="completed")


def posts_are_repeated(trial: Trial) -> None:
    payload: dict[str, object] = {}
    event = trial.client.post("journal.sync", payload, key="same")
    for _ in range(3):
        trial.client.post_again(int(str(payload["n"])), "journal.sync", payload, key="same")
    trial.wait_for(event, status="completed")


def events_fail(trial: Trial) -> None:
    within = trial.client.post("journal.sync", {"fail_times": 1}, max_attempts=3)
    beyond = trial.client.post("journal.sync", {"fail_times": 4}, max_attempts=2)
    trial.wait_for(within, status="completed")
    trial.wait_for(beyond, status="failed", within=5)


def a_final_event_is_cancelled_and_retried(trial: Trial) -> None:
    done = trial.client.post("journal.sync", {})
    trial.wait_for(done, status="completed")
    trial.client.cancel(done or "")
    trial.client.retry(done or "")
    trial.client.get(done or "")
    failed = trial.client.post("journal.sync", {"reject": True})
    trial.wait_for(failed, status="failed")
    trial.client.retry(failed or "")
    trial.wait_for(failed, status="failed")
