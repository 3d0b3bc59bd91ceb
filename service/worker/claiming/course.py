"""Where the supplier looks next: a pure function."""

from __future__ import annotations

from enum import Enum


class Course(Enum):
    """What the supplier does next."""

    REST = "rest"
    ISOLATE = "isolate"
    SUSPECTS = "suspects"
    MONGODB = "mongodb"
    REDIS = "redis"


def choose(*, may_claim: bool, is_isolated: bool, suspects_wait: bool, redis_away: bool) -> Course:
    """Suspects come first, and nothing comes beside them; MongoDB is asked where Redis is away."""
    if not may_claim:
        return Course.REST
    if is_isolated:
        return Course.ISOLATE
    if suspects_wait:
        return Course.SUSPECTS
    return Course.MONGODB if redis_away else Course.REDIS
