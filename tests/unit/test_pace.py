"""How fast a change of many may go."""

from __future__ import annotations

from service.store.pace import Pace


def test_a_chunk_is_as_large_as_its_time_allows_within_bounds() -> None:
    quick, slow, steady = Pace(), Pace(), Pace()
    for _ in range(50):
        quick.after(quick.size, quick.size * 0.000_01)
        slow.after(slow.size, slow.size * 0.1)
        steady.after(steady.size, steady.size * 0.000_4)
    assert (quick.size, steady.size, slow.size) == (200, 100, 50)


def test_while_all_is_well_it_leaves_others_as_much_time_as_it_takes() -> None:
    pace = Pace()
    pauses = [pace.after(250, 0.05) for _ in range(9)]
    assert max(pauses) - min(pauses) < 0.001
    assert abs(pauses[-1] - 0.05) < 0.001


def test_pauses_grow_while_mongodb_has_become_slow_and_shrink_again() -> None:
    pace = Pace()
    pace.after(250, 0.05)
    for _ in range(50):
        busy = pace.after(250, 0.5)
    assert busy == 4.0 * 0.5
    for _ in range(80):
        well = pace.after(250, 0.05)
    assert well < 0.06


def test_one_slow_chunk_among_many_says_little() -> None:
    pace = Pace()
    for _ in range(20):
        pace.after(250, 0.05)
    pace.after(250, 0.1)
    assert pace.after(250, 0.05) < 0.1
