"""What a process holds, and how many more it should."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.worker.registry import Held, Registry, Stage
from tests.factories import done_async, make_held, make_type

SLOW = make_type("slow")
FAST = make_type("fast")
WAITS = make_type("waits", done_async)
WAITS_TOO = make_type("waits_too", done_async)


def make_registry(*types: Any, threads: int = 4, async_concurrency: int = 10) -> Registry:
    return Registry(threads, async_concurrency, types or [SLOW])


def hold(registry: Registry, count: int, event_type: Any = SLOW, **job: Any) -> list[Held]:
    held = [make_held(event_type, **job) for _ in range(count)]
    registry.add(held)
    return held


def run(registry: Registry, count: int, seconds: float, event_type: Any = SLOW) -> None:
    """So many runs, each as long as said, one after the other."""
    for held in hold(registry, count, event_type):
        registry.start(held.job.id)
        held.started = time.monotonic() - seconds
        registry.free_place(held)
        registry.remove([held])


# room


def test_with_jobs_of_unknown_length_it_holds_no_more_than_it_has_threads() -> None:
    registry = make_registry(threads=4)
    assert registry.room(SLOW) == 4
    hold(registry, 4)
    assert registry.room(SLOW) == 0


def test_with_short_jobs_it_holds_hundreds() -> None:
    registry = make_registry(threads=4)
    run(registry, 40, 0.0002)
    assert 100 < registry.room(SLOW) <= 504


def test_with_long_jobs_it_holds_no_more_than_it_has_threads() -> None:
    registry = make_registry(threads=8)
    run(registry, 40, 0.2)
    assert registry.room(SLOW) == 8


def test_with_jobs_that_became_longer_it_soon_holds_few_again() -> None:
    registry = make_registry(threads=4)
    run(registry, 40, 0.0002)
    run(registry, 40, 1.0)
    assert registry.room(SLOW) == 4


def test_where_nothing_ends_nothing_is_held_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = make_registry(threads=4)
    run(registry, 40, 0.001)
    assert registry.room(SLOW) > 4
    later = time.monotonic() + 1
    monkeypatch.setattr("service.worker.registry.time.monotonic", lambda: later)
    assert registry.room(SLOW) == 4


def test_what_is_held_ahead_of_one_type_counts_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = make_registry(SLOW, FAST, threads=4)
    run(registry, 20, 0.001, FAST)
    run(registry, 20, 0.02, SLOW)
    before = registry.room(FAST)
    hold(registry, registry.room(SLOW), SLOW)
    assert registry.room(FAST) < before / 4


def test_where_claims_take_long_more_is_held_ahead() -> None:
    registry = make_registry(threads=4)
    run(registry, 40, 0.005)
    before = registry.room(SLOW)
    for _ in range(100):
        registry.claim_took(0.02)
    assert registry.room(SLOW) > 2 * before


def test_a_claim_waits_until_it_is_worth_the_round_trip() -> None:
    registry = make_registry(threads=4)
    run(registry, 40, 0.002)
    held = hold(registry, registry.room(SLOW))
    for one in held[:4]:
        registry.start(one.job.id)
    assert not registry.is_worth_a_claim(SLOW)
    registry.remove(held[4:6])
    assert registry.room(SLOW) > 0
    assert not registry.is_worth_a_claim(SLOW)
    registry.remove(held[6:24])
    assert registry.is_worth_a_claim(SLOW)


def test_long_jobs_are_claimed_for_each_place_that_becomes_free() -> None:
    registry = make_registry(threads=4)
    run(registry, 10, 1.0)
    held = hold(registry, 4)
    assert not registry.is_worth_a_claim(SLOW)
    registry.free_place(held[0])
    assert registry.is_worth_a_claim(SLOW)


def test_the_end_of_a_run_wakes_who_waits_for_room() -> None:
    registry = make_registry(threads=1)
    (held,) = hold(registry, 1)
    registry.start(held.job.id)
    threading.Timer(0.05, registry.free_place, [held]).start()
    began = time.monotonic()
    registry.wait_until_worth_a_claim([SLOW], 30)
    assert time.monotonic() - began < 10


def test_asynchronous_jobs_are_bounded_by_the_setting_and_take_no_threads_room() -> None:
    registry = make_registry(SLOW, WAITS)
    hold(registry, 10, WAITS)
    assert registry.room(WAITS) == 0
    assert registry.room(SLOW) == 4


def test_room_comes_back_with_each_outcome() -> None:
    registry = make_registry(WAITS)
    held = hold(registry, 10, WAITS)
    registry.remove(held[:3])
    assert registry.room(WAITS) == 3
    assert len(registry) == 7


# bytes


def roomy(most_bytes: int = 1_000_000) -> Registry:
    return Registry(4, 2_000, [WAITS], most_bytes)


def test_large_jobs_leave_room_for_as_many_as_have_the_bytes() -> None:
    registry = roomy()
    assert registry.room(WAITS) == 2_000
    hold(registry, 4, WAITS, size=100_000)
    assert registry.room(WAITS) == 6
    hold(registry, 6, WAITS, size=100_000)
    assert (registry.room(WAITS), registry.room_bytes) == (0, 0)


def test_one_job_finds_room_however_large_those_before_were() -> None:
    registry = roomy()
    registry.remove(hold(registry, 1, WAITS, size=5_000_000))
    assert (registry.room(WAITS), registry.room_bytes) == (1, 1_000_000)


def test_after_large_jobs_small_ones_soon_come_by_the_hundred_again() -> None:
    registry = roomy()
    registry.remove(hold(registry, 10, WAITS, size=100_000))
    for _ in range(40):
        registry.remove(hold(registry, registry.room(WAITS), WAITS, size=400))
    assert registry.room(WAITS) == 2_000


def test_a_result_takes_bytes_until_it_is_written() -> None:
    registry = roomy()
    (held,) = hold(registry, 1, WAITS, size=1_000)
    registry.free_place(held, 499_500)
    registry.free_place(held, 499_500)  # of several attempt_results the first one counts
    assert (registry.room(WAITS), registry.room_bytes) == (0, 0)
    registry.remove([held])
    registry.remove([held])
    registry.free_place(held, 499_500)
    assert registry.room_bytes == 1_000_000


def test_who_is_about_to_claim_waits_for_room(unless: threading.Event) -> None:
    registry = roomy()
    large = hold(registry, 1, WAITS, size=1_000_000)
    claims = threading.Thread(target=registry.wait_until_not_alone, args=[unless])
    claims.start()
    claims.join(0.05)
    assert claims.is_alive()
    registry.remove(large)
    claims.join(5)
    assert not claims.is_alive()


@pytest.fixture
def unless() -> Iterator[threading.Event]:
    """A process that stops, which every wait ends for."""
    event = threading.Event()
    yield event
    event.set()


# one type beside others


def test_one_of_several_types_leaves_room_for_the_others() -> None:
    registry = make_registry(SLOW, FAST, threads=4)
    assert registry.room(SLOW) == 3
    hold(registry, 3)
    assert registry.room(SLOW) == 0
    assert registry.room(FAST) == 1


def test_an_only_type_may_have_it_all() -> None:
    registry = make_registry(WAITS, async_concurrency=10)
    assert registry.room(WAITS) == 10


def test_of_several_asynchronous_types_one_may_have_its_share() -> None:
    registry = make_registry(WAITS, WAITS_TOO, async_concurrency=10)
    hold(registry, 6, WAITS)
    assert registry.room(WAITS) == 0
    assert registry.room(WAITS_TOO) == 2
    assert not registry.is_worth_a_claim(WAITS)
    assert registry.is_worth_a_claim(WAITS_TOO)


def test_even_one_thread_serves_every_type() -> None:
    registry = make_registry(SLOW, FAST, threads=1)
    assert registry.room(SLOW) == registry.room(FAST) == 1


# the way of one job


def test_a_job_starts_once() -> None:
    registry = make_registry()
    (held,) = hold(registry, 1)
    assert registry.start(held.job.id) is held
    assert registry.start(held.job.id) is None
    assert registry.running() == [held]


def test_a_job_that_is_not_held_does_not_start() -> None:
    assert make_registry().start("unknown") is None


def test_a_started_job_has_a_deadline() -> None:
    registry = make_registry()
    (held,) = hold(registry, 1, time_limit_ms=5_000)
    registry.start(held.job.id)
    assert held.deadline - time.monotonic() == pytest.approx(5, abs=0.1)


def test_what_was_given_back_never_starts() -> None:
    registry = make_registry()
    running, waiting = hold(registry, 2)
    registry.start(running.job.id)
    assert registry.drop_waiting() == [waiting]
    assert registry.drop_waiting() == []
    assert registry.start(waiting.job.id) is None
    assert waiting.stage is Stage.DROPPED


def test_a_settled_job_runs_no_more() -> None:
    registry = make_registry()
    (held,) = hold(registry, 1)
    registry.start(held.job.id)
    held.settled = True
    assert registry.running() == []


def test_a_job_claimed_again_while_its_former_run_goes_on_is_held_twice() -> None:
    registry = make_registry(threads=4)
    (first,) = hold(registry, 1, id="a")
    assert registry.start("a") is first
    (second,) = hold(registry, 1, id="a", claim="second")
    assert registry.running() == [first]
    assert registry.start("a") is second
    assert registry.running() == [first, second]
    registry.remove([first])
    assert registry.running() == [second]
    assert [registry.holds("a", one.job.claim) for one in (first, second)] == [False, True]
    registry.remove([second])
    assert len(registry) == 0
    assert registry.room(SLOW) == 4


def test_a_job_claimed_again_before_it_began_is_held_once() -> None:
    registry = make_registry(threads=4)
    (first,) = hold(registry, 1, id="a")
    (second,) = hold(registry, 1, id="a", claim="second")
    assert first.stage is Stage.DROPPED
    assert registry.start("a") is second
    registry.remove([first, second])
    assert len(registry) == 0
    assert registry.room(SLOW) == 4


def test_removals_wake_who_waits_for_them() -> None:
    registry = make_registry()
    held = hold(registry, 3)
    assert not registry.wait_until_at_most(0, 0.01)
    threading.Timer(0.05, registry.remove, [held]).start()
    assert registry.wait_until_at_most(0, 5)


# suspects


def waits(registry: Registry, unless: threading.Event | None = None) -> threading.Thread:
    thread = threading.Thread(
        target=registry.wait_until_not_alone, args=(unless or threading.Event(),)
    )
    thread.start()
    return thread


def test_without_suspects_nobody_waits() -> None:
    registry = make_registry()
    hold(registry, 3)
    registry.wait_until_not_alone(threading.Event())


def test_a_suspect_is_alone_until_it_has_ended() -> None:
    registry = make_registry()
    suspects = hold(registry, 1, company=1, deaths=1)
    waiting = waits(registry)
    waiting.join(0.05)
    assert waiting.is_alive()
    registry.remove(suspects)
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_suspect_that_takes_long_is_not_waited_for_forever() -> None:
    registry = make_registry()
    (suspect,) = hold(registry, 1, company=1, deaths=1)
    suspect.alone_until = time.monotonic() + 0.05
    waiting = waits(registry)
    waiting.join(5)
    assert not waiting.is_alive()


def test_a_process_that_stops_waits_for_no_suspect() -> None:
    registry = make_registry()
    hold(registry, 1, company=1, deaths=1)
    stopping = threading.Event()
    waiting = waits(registry, stopping)
    stopping.set()
    waiting.join(5)
    assert not waiting.is_alive()


def test_with_each_death_a_suspect_is_left_alone_longer_but_never_for_good() -> None:
    registry = make_registry()
    times = []
    for deaths in (1, 2, 3, 50):
        (suspect,) = hold(registry, 1, company=1, deaths=deaths)
        times.append(suspect.alone_until - time.monotonic())
    assert times == sorted(times)
    assert times[-1] <= 600
