"""Polling with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(
    look: Callable[[], Value],
    what: str = "what is waited for",
    *,
    within: float = 10.0,
    every: float = 0.05,
) -> Value:
    """The first true value that `look()` gives; fails when that takes too long.

    What it raises counts as "not yet": servers are down in these tests.
    """
    deadline = time.monotonic() + within
    last: object = None
    while True:
        try:
            value = look()
        except Exception as error:
            last = error
        else:
            if value:
                return value
            last = value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within} s; last seen: {last!r}")
        time.sleep(every)
