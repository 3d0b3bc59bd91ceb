"""How much of what is taken together has which priority: high goes first, but none starves."""

from __future__ import annotations

import random
from collections.abc import Sequence

from service.job import Hint

SHARES = {"high": 0.6, "normal": 0.3, "low": 0.1}
_FEW = 4 * len(SHARES)


def first_ones(total: int, rng: random.Random) -> list[int]:
    """How many to take of high, normal and low before filling up in that order. For a few at a time
    the dice say which list is first."""
    if total >= _FEW:
        return [max(1, int(total * share)) for share in SHARES.values()]
    chosen = rng.choices(range(len(SHARES)), list(SHARES.values()), k=total)
    return [chosen.count(i) for i in range(len(SHARES))]


def shared_out(found: Sequence[list[Hint]], first: Sequence[int], most: int) -> list[Hint]:
    """Up to `most` in all: of each list its `first` ones, then more in the lists' order."""
    chosen = [hint for hints, share in zip(found, first, strict=True) for hint in hints[:share]]
    for hints, share in zip(found, first, strict=True):
        chosen += hints[share:]
    return chosen[:most]
