"""Readings of something slow, hung or down."""

from __future__ import annotations

import asyncio
import threading
import time

from service.concurrency.stale_cache import StaleCache
from tests.factories import eventually


def test_a_fresh_value_is_read_once_for_all() -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        return len(reads)

    async def main() -> None:
        reading = StaleCache(read, name="test", fresh_seconds=60)
        known = await asyncio.gather(*(reading.get(10) for _ in range(20)))
        assert {k.value for k in known} == {1}
        assert (await reading.get(1)).value == 1

    asyncio.run(main())


def test_what_is_old_is_read_again() -> None:
    async def main() -> None:
        values = iter(range(10))
        reading = StaleCache(lambda: next(values), name="test", fresh_seconds=0)
        seen: list[int | None] = []
        while len(seen) < 3:  # a reading that took long is kept for a moment
            value = (await reading.get(1)).value
            if value not in seen:
                seen.append(value)
            await asyncio.sleep(0.001)
        assert seen == [0, 1, 2]

    asyncio.run(main())


def test_an_error_keeps_the_last_value() -> None:
    async def main() -> None:
        values = iter([5])

        def read() -> int:
            if (value := next(values, None)) is None:
                raise OSError("gone")
            return value

        reading = StaleCache(read, name="test", fresh_seconds=0)
        while (known := await reading.get(1)).error is None:
            assert known.value == 5
        assert (known.value, known.error) == (5, "OSError: gone")

    asyncio.run(main())


def test_who_hangs_holds_up_nobody_and_is_started_once() -> None:
    release, starts = threading.Event(), list[int]()

    def read() -> int:
        starts.append(1)
        release.wait(10)
        return 1

    async def main() -> None:
        reading = StaleCache(read, name="test", fresh_seconds=0)
        began = time.monotonic()
        for _ in range(5):
            known = await reading.get(0.4)
            assert known.error is not None
            assert known.error.startswith("no answer")
        assert time.monotonic() - began < 1.8, "only the first waits"
        assert len(starts) == 1
        release.set()
        eventually(lambda: reading.known.value == 1)

    asyncio.run(main())


def test_a_slow_reading_is_taken_less_often() -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(1)
        time.sleep(0.05)
        return len(reads)

    async def main() -> None:
        reading = StaleCache(read, name="test", fresh_seconds=0)
        for _ in range(10):
            await reading.get(1)
        assert len(reads) == 1

    asyncio.run(main())
