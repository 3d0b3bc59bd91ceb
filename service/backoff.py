"""attempt -> delay: exponential with full jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass

_MAX_EXPONENT = 40  # 2**40 ms is 34 years: beyond any cap, and far from float trouble


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits double from `first_ms` up to `cap_ms`; the wait is drawn evenly from 0 to that bound.
    Whole numbers from 0 to a year, `first_ms` not above `cap_ms`: no event type takes any other.

    Full jitter spreads retries that failed together, so that they don't come back together
    (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """

    first_ms: int = 1_000
    cap_ms: int = 300_000

    def bound_ms(self, attempt: int) -> int:
        """The longest wait after failed attempt number `attempt` (from 1), in milliseconds."""
        return min(self.cap_ms, self.first_ms << min(attempt - 1, _MAX_EXPONENT))

    def delay_ms(self, attempt: int, rng: random.Random) -> int:
        """The wait after failed attempt number `attempt` (from 1), in milliseconds."""
        return rng.randint(0, self.bound_ms(attempt))
