"""Who goes first among what is taken together."""

from __future__ import annotations

import random

import pytest

from service.job import Hint
from service.worker.claiming.shares import first_ones, shared_out

pytestmark = pytest.mark.timeout(30)
_RNG = random.Random(20261)


@pytest.mark.parametrize("total", [1, 2, 5, 11, 12, 100, 512])
def test_shares_are_never_more_than_there_is_room_for(total: int) -> None:
    for _ in range(50):
        shares = first_ones(total, _RNG)
        assert sum(shares) <= total
        if total >= 12:
            assert min(shares) >= 1


def test_even_one_at_a_time_nobody_starves() -> None:
    seen = [0, 0, 0]
    for _ in range(500):
        for number, share in enumerate(first_ones(1, _RNG)):
            seen[number] += share
    assert seen[0] > seen[1] > seen[2] > 0


def test_what_one_list_leaves_free_others_get() -> None:
    def hints(name: str, count: int) -> list[Hint]:
        return [Hint(f"{name}{i}", "email", "default", "normal") for i in range(count)]

    def shared(high: int, normal: int, low: int) -> list[str]:
        lists = [hints("h", high), hints("n", normal), hints("l", low)]
        return [h.job_id for h in shared_out(lists, [6, 3, 1], 10)]

    assert shared(20, 20, 20) == [*(f"h{i}" for i in range(6)), "n0", "n1", "n2", "l0"]
    assert shared(0, 0, 20) == [f"l{i}" for i in range(10)]
    assert shared(0, 4, 4) == ["n0", "n1", "n2", "l0", "n3", "l1", "l2", "l3"]
