"""Python's cyclic garbage collector, told what a long-lived server is like."""

from __future__ import annotations

import gc

_YOUNG_OBJECTS = 20_000
"""A busy process makes that many in a few milliseconds, nearly all of them for a moment only."""


def settle() -> None:
    """Call it once the process has everything: no later collection looks at that again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
