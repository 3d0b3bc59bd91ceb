"""Python's cyclic garbage collector, told what a long-lived server is like."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG_OBJECTS = 20_000
"""A busy process makes that many in a few milliseconds, nearly all of them for a moment only."""


def settle() -> None:
    """Call it once the process has everything: no later collection looks at that again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


@contextmanager
def paused() -> Iterator[None]:
    """Nothing is collected meanwhile, in any thread: for the moment in which a large value is made
    and taken apart again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
