"""Reads of many events, for the event loop."""

from __future__ import annotations

from service.errors import StoreLate, TooSlow
from service.store import Filter
from service.store.listing import Listing
from service.store.mongo import Document
from service.web.blocking_pool import BlockingPool

LONGEST_READ_SECONDS = 3.0
_MOST_PAGE_BYTES = 4_194_304
"""A page of large events ends before its limit."""
_TOO_SLOW = (
    f"MongoDB did not find this page within {LONGEST_READ_SECONDS:g} s: few events match among "
    "very many; a shorter time (created_after, created_before) or another filter is quicker"
)


class PageReader:
    """Reads pages of events on `pool`, which gives a read `LONGEST_READ_SECONDS`."""

    def __init__(self, pool: BlockingPool, listing: Listing) -> None:
        self._pool, self._listing = pool, listing

    async def read(
        self, which: Filter, limit: int, below: str | None
    ) -> tuple[list[Document], bool]:
        """Newest first, at most `limit`, only ids before `below`; and whether there is more.

        Raises `TooSlow`, `BacklogFull`, `StoreUnavailable`.
        """
        try:
            return await self._pool.run(self._listing.page, which, limit, below, _MOST_PAGE_BYTES)
        except StoreLate:
            raise TooSlow(_TOO_SLOW) from None

    def stop(self) -> None:
        self._pool.stop()
