"""When a process is certain that another one is gone: on real processes, seen and unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.runtime import identity
from service.runtime.identity import is_gone, pid_started, process_space
from tests.factories import eventually

PROJECT = Path(__file__).parents[2]
SLEEP = [sys.executable, "-c", "input()"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run as another user")


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP, stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def started(child: subprocess.Popen[bytes]) -> int:
    found = pid_started(child.pid)
    assert found is not None
    return found


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)


def test_a_process_that_runs_is_not_gone(neighbour: subprocess.Popen[bytes]) -> None:
    assert not is_gone(neighbour.pid, started(neighbour))


def test_a_process_that_ended_is_gone(neighbour: subprocess.Popen[bytes]) -> None:
    began = started(neighbour)
    neighbour.kill()
    neighbour.wait(5)
    assert is_gone(neighbour.pid, began)


def test_a_process_that_nobody_has_waited_for_yet_is_gone(
    neighbour: subprocess.Popen[bytes],
) -> None:
    began = started(neighbour)
    neighbour.kill()
    assert eventually(lambda: is_gone(neighbour.pid, began))
    assert neighbour.returncode is None


def test_another_process_with_the_same_pid_is_not_the_one_that_began_earlier(
    neighbour: subprocess.Popen[bytes],
) -> None:
    assert is_gone(neighbour.pid, started(neighbour) - 1)


def test_a_process_that_cannot_be_looked_at_is_not_taken_for_gone(
    neighbour: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under `hidepid`: /proc has no entry for it, though it runs."""
    began = started(neighbour)
    monkeypatch.setattr(identity, "_stat", lambda _pid: None)
    assert not is_gone(neighbour.pid, began)


@as_root
def test_a_process_of_another_user_behind_hidepid_is_gone_when_it_has_ended(
    neighbour: subprocess.Popen[bytes],
) -> None:
    began = started(neighbour)
    look = f"""
import os
from service.runtime.identity import is_gone, pid_started
os.setgroups([]), os.setgid(65534), os.setuid(65534)
print(pid_started({neighbour.pid}), is_gone({neighbour.pid}, {began}))
"""
    hidden = "mount -t proc -o hidepid=2 proc /proc"
    command = ["unshare", "--mount", "sh", "-c", f'{hidden} && "$@"', "sh"]
    if run([*command, "true"]).returncode:
        pytest.skip("needs the right to mount /proc")
    answer = run([*command, sys.executable, "-c", look])
    assert answer.stdout.split() == ["None", "False"], answer.stderr
    neighbour.kill()
    neighbour.wait(5)
    assert run([*command, sys.executable, "-c", look]).stdout.split() == ["None", "True"]


@as_root
def test_where_proc_is_of_other_pids_nobody_claims_to_see_a_neighbour() -> None:
    """In a PID namespace of its own, with /proc of the one outside."""
    code = "from service.runtime.identity import process_space; print(process_space())"
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", code]
    found = run(command)
    if found.returncode:
        pytest.skip(f"needs a PID namespace: {found.stderr}")
    assert found.stdout.startswith("unknown/")
    assert not process_space().startswith("unknown/")
