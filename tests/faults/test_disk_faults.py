"""A disk that is full under MongoDB."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.servers import MongoServer
from tests.faults.stack import QUICK, Stack
from tests.faults.waiting import eventually

pytestmark = [pytest.mark.soak, pytest.mark.timeout(180)]
DISK_MB = 700


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, as small as mongod can do with."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, timeout=20, check=False)
    except OSError as error:
        pytest.skip(f"a file system needs mount: {error}")
    if made.returncode:
        pytest.skip(f"a file system can't be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], timeout=20, check=True)


def test_a_full_disk_means_503_and_never_a_false_202(tmp_path: Path, small_disk: Path) -> None:
    mongo = MongoServer(small_disk / "mongo")
    with Stack(tmp_path / "stack", workers=1, env=QUICK, mongo=mongo) as stack:
        accepted = [stack.api.post("journal.sync") for _ in range(20)]
        filler = small_disk / "filler"
        fill(filler)
        pad = "x" * 900_000

        def refused() -> bool:
            answer = stack.api.try_post("journal.sync", {"pad": pad})
            if answer.status_code == 202:
                accepted.append(answer.json()["id"])
                return False
            assert answer.status_code == 503, answer.text
            assert "retry-after" in answer.headers
            return True

        eventually(refused, "the disk is full", within=90, every=0)
        filler.unlink()
        if not mongo.running:
            mongo.start()
        after = eventually(lambda: stack.api.post("journal.sync"), "it goes on", within=40)
        for event in [*accepted, after]:
            assert stack.api.wait_final(event, within=60)["status"] == "completed"


def fill(file: Path) -> None:
    """Writes until nothing more fits."""
    try:
        with file.open("wb") as target:
            while True:
                target.write(b"\0" * 1_048_576)
    except OSError:
        return
