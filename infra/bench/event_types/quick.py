"""`bench.quick` and `bench.quick_async`: done at once, the first on a thread."""

from __future__ import annotations

from typing import Any

from service.catalog import Context, event_type


@event_type("bench.quick")
def quick(_payload: dict[str, Any], _context: Context) -> None:
    """Nothing to do."""


@event_type("bench.quick_async")
async def quick_async(_payload: dict[str, Any], _context: Context) -> None:
    """Nothing to do."""
