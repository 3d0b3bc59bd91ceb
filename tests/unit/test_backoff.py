"""How long a failed attempt waits."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from service.backoff import Backoff

backoffs = st.builds(Backoff, first_ms=st.integers(1, 10**6), cap_ms=st.integers(1, 10**9))


@given(backoffs, st.integers(1, 10**6), st.integers())
def test_a_wait_lies_between_nothing_and_its_bound(
    backoff: Backoff, attempt: int, seed: int
) -> None:
    delay = backoff.delay_ms(attempt, random.Random(seed))
    assert 0 <= delay <= backoff.bound_ms(attempt) <= backoff.cap_ms


@given(backoffs, st.integers(1, 10**6))
def test_bounds_never_shrink(backoff: Backoff, attempt: int) -> None:
    assert backoff.bound_ms(attempt) <= backoff.bound_ms(attempt + 1)


def test_bounds_double_up_to_the_cap() -> None:
    backoff = Backoff(first_ms=1_000, cap_ms=5_000)
    assert [backoff.bound_ms(a) for a in range(1, 6)] == [1_000, 2_000, 4_000, 5_000, 5_000]


def test_waits_spread_over_the_whole_range() -> None:
    rng = random.Random(7)
    waits = [Backoff(first_ms=1_000).delay_ms(1, rng) for _ in range(1_000)]
    assert min(waits) < 50
    assert max(waits) > 950
    assert 450 < sum(waits) / len(waits) < 550
