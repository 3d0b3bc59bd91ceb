"""Gives back jobs that this process was given and doesn't know of: their claim's reply was lost."""

from __future__ import annotations

import time

from service.worker.claiming.supply import Supply
from service.worker.claiming.unheld import release_unheld
from service.worker.maintenance.hint_sender import HintSender


class LostClaims:
    """To be looked for now and then, and often while a claim has got no answer."""

    def __init__(self, supply: Supply, hints: HintSender) -> None:
        self._supply, self._hints = supply, hints

    def are_likely(self) -> bool:
        return time.monotonic() < self._supply.doubtful_until

    def release(self) -> None:
        """Raises `StoreUnavailable` and `redis.RedisError`."""
        self._hints.send(release_unheld(self._supply))
