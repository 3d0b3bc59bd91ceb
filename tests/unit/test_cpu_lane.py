"""Large work in turns, and how much of it may be there at once."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from service.concurrency import cpu_lane
from service.concurrency.cpu_lane import CpuLane, Room, Steps
from service.errors import BacklogFull


def test_small_work_is_done_at_once_and_large_work_on_one_thread() -> None:
    async def threads() -> list[threading.Thread]:
        lane = CpuLane()
        try:
            return [
                await lane.run(threading.current_thread, is_large=is_large)
                for is_large in (False, True, True)
            ]
        finally:
            lane.stop()

    small, large, next_large = asyncio.run(threads())
    assert small is threading.current_thread()
    assert large is next_large is not small


def test_nothing_is_collected_while_a_large_value_is_made() -> None:
    async def is_enabled() -> list[bool]:
        lane = CpuLane()
        try:
            return [await lane.run(gc.isenabled, is_large=True), gc.isenabled()]
        finally:
            lane.stop()

    assert asyncio.run(is_enabled()) == [False, True]


def test_long_work_lets_others_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_lane, "_TURN_SECONDS", 1e-9)
    order: list[str] = []

    async def race() -> None:
        lane = CpuLane()
        try:
            long = asyncio.create_task(lane.run_steps(_steps(order), is_large=True))
            await asyncio.sleep(0)
            await lane.run(lambda: order.append("other"), is_large=True)
            assert await long == "done"
        finally:
            lane.stop()

    asyncio.run(race())
    assert order.index("other") < order.index("last step")


def _steps(order: list[str]) -> Steps[str]:
    for number in range(5):
        order.append(f"step {number}")
        yield
    order.append("last step")
    return "done"


def test_steps_of_small_work_are_done_at_once() -> None:
    order: list[str] = []

    async def run() -> str:
        lane = CpuLane()
        return await lane.run_steps(_steps(order), is_large=False)

    assert asyncio.run(run()) == "done"
    assert len(order) == 6


def test_who_finds_no_room_waits_in_line() -> None:
    order: list[str] = []

    async def enter(room: Room, name: str, size: int, goes: asyncio.Event) -> None:
        async with room.of(size):
            order.append(name)
            await goes.wait()

    async def race() -> None:
        room, goes, last_goes = Room(10, 5), asyncio.Event(), asyncio.Event()
        entries = [("large", 50, goes), ("next", 6, last_goes), ("too much", 5, last_goes)]
        tasks = [asyncio.create_task(enter(room, *one)) for one in (*entries, ("4", 4, last_goes))]
        await asyncio.sleep(0.01)
        assert order == ["large"]
        goes.set()
        await asyncio.sleep(0.01)
        assert order == ["large", "next"]  # the last one would fit, but it isn't its turn
        last_goes.set()
        await asyncio.gather(*tasks)

    asyncio.run(race())
    assert order == ["large", "next", "too much", "4"]


def test_who_waits_too_long_or_goes_away_leaves_the_line() -> None:
    async def race() -> None:
        room = Room(10, 0.02)
        async with room.of(10):
            gone = asyncio.create_task(_pass(room))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(BacklogFull):
                await _pass(room)
        await _pass(room)
        async with asyncio.timeout(1), room.of(10):
            pass

    asyncio.run(race())


async def _pass(room: Room) -> None:
    async with room.of(1):
        pass
