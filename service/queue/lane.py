"""A lane's name, and its keys in Redis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple


class Lane(NamedTuple):
    """What can be blocked as one."""

    queue: str
    type: str

    @property
    def name(self) -> str:
        return f"{self.queue}/{self.type}"


@lru_cache(100_000)
def lane_of(name: bytes) -> Lane:
    """The lane that has this name in Redis."""
    queue, _, job_type = name.decode(errors="replace").partition("/")
    return Lane(queue, job_type)


@dataclass(frozen=True, slots=True)
class LaneKeys:
    """No queue's or type's name has a slash or a colon in it, so that these are nobody else's."""

    namespace: str

    @property
    def prefix(self) -> str:
        return f"{self.namespace}:"

    @property
    def known(self) -> str:
        """The set of the lanes that have something."""
        return f"{self.namespace}:__lanes__"

    def of(self, lane: Lane, what: str) -> str:
        return f"{self.namespace}:{lane.name}:{what}"

    def lists(self, lane: Lane) -> list[str]:
        """The lists of its messages: high, normal, low."""
        base = f"{self.namespace}:{lane.name}"
        return [f"{base}:high", base, f"{base}:low"]

    def front(self, queue: str) -> str:
        return f"{self.namespace}:{queue}:front"

    def queue_of_front(self, key: bytes) -> str:
        return key.decode().removeprefix(self.prefix).removesuffix(":front")
