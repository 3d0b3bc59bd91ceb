"""What a worker process makes of the list of workers: its place, deaths, the lead."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from pymongo.database import Database

from service.runtime.identity import pid_started, process_space
from service.store import LeaderLease, WorkerStore
from service.worker.process import WorkerProcess
from tests.contract.worker_process import MakeProcess
from tests.factories import ago, all_workers, make_worker


def test_the_documents_of_processes_seen_to_be_gone_are_removed(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    here = process_space()
    mine = {"process_space": here, "pid": os.getpid(), "pid_started": pid_started(os.getpid())}
    for name, over in {
        "gone": mine | {"pid": child.pid, "pid_started": 5},
        "another with its pid": mine | {"pid_started": 5},
        "alive": mine,
        "elsewhere": mine | {"process_space": "elsewhere", "pid": child.pid},
    }.items():
        workers.beat(make_worker(name, **over), processing=0)
    process._neighbours.look()
    assert {w["_id"] for w in all_workers(workers)} == {"alive", "elsewhere", process.identity.id}


def test_its_position_is_among_the_living_however_many_have_died(
    process: WorkerProcess, workers: WorkerStore, database: Database[Any]
) -> None:
    workers.beat(make_worker("0", process_space="elsewhere"), processing=0)
    database["workers"].update_one({"_id": "0"}, {"$set": {"heartbeat_at": ago(100)}})
    dead = database["workers"].find_one({"_id": "0"})
    assert dead is not None
    database["workers"].insert_many(dead | {"_id": f"0-{n:05}"} for n in range(1_100))
    process._supply.position = (5, 9)
    process._neighbours.look()
    assert process._supply.position == (0, 1)


def test_the_lead_of_a_process_that_is_gone_is_taken_over_at_once(
    make_process: MakeProcess, workers: WorkerStore, database: Database[Any]
) -> None:
    gone = LeaderLease(database, "gone", 60)
    assert gone.renew()
    process = make_process()
    assert not process._leader.is_held
    workers.beat(
        make_worker("gone", process_space=process_space(), pid=1, pid_started=5), processing=0
    )
    process._neighbours.look()
    assert process._leader.is_held


def test_a_process_knows_its_place_among_the_living(
    process: WorkerProcess, workers: WorkerStore
) -> None:
    for name in ("0 first", "zz last"):
        workers.beat(make_worker(name), processing=0)
    process._neighbours.look()
    assert process._supply.position == (1, 3)
