"""Three MongoDB nodes whose primary steps down, dies or hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.api import FINAL
from tests.faults.history import OK
from tests.faults.load import Load
from tests.faults.recording import Client
from tests.faults.replica_set import ReplicaSet
from tests.faults.stack import Stack
from tests.faults.trial import Trial
from tests.faults.waiting import eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> ReplicaSet:
    return ReplicaSet(tmp_path_factory.mktemp("nodes"))


@pytest.fixture(scope="module")
def big_stack(nodes: ReplicaSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("big"), workers=2, mongo=nodes) as stack:
        yield stack


def kill_primary(nodes: ReplicaSet) -> None:
    nodes.wait_primary().kill()


def freeze_primary(nodes: ReplicaSet) -> None:
    nodes.wait_primary().freeze()


@pytest.mark.parametrize(
    "fault", [ReplicaSet.step_down, kill_primary, freeze_primary], ids=lambda f: f.__name__
)
def test_nothing_is_lost_or_done_twice_when_the_primary_changes(
    big_stack: Stack, nodes: ReplicaSet, fault: Callable[[ReplicaSet], None]
) -> None:
    big_stack.undo_faults()
    big_stack.wait_ready()
    big_stack.forget()
    trial = Trial(big_stack, big_stack.webs[0])
    clients = [Client(big_stack.api, trial.recorder) for _ in range(4)]
    load = Load(clients, seed=7, rate=60)
    load.start()
    eventually(lambda: len(trial.recorder.history.accepted) > 100, within=20)
    with trial.recorder.fault(fault.__name__, "mongod"):
        fault(nodes)
        before = trial.recorder.history.count("post")[OK]
        eventually(
            lambda: trial.recorder.history.count("post")[OK] > before + 100,
            "events are accepted again",
            within=40,
        )
    load.stop()
    trial.drain(60)
    report = trial.judge()
    assert report.verdict == "green", str(report)
    assert {d["status"] for d in trial.recorder.history.documents} <= FINAL
