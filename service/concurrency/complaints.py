"""What to say of a server that can't be used: each reason once an outage, not at every try."""

from __future__ import annotations

import logging

from redis.exceptions import AuthenticationError, NoPermissionError

from service.errors import StoreRefused

_REFUSALS = (StoreRefused, AuthenticationError, NoPermissionError)


class Complaints:
    """Of one server, through one outage after the other."""

    def __init__(self) -> None:
        self._said: set[object] = set()

    def is_news(self, error: BaseException) -> bool:
        """Whether this reason is new in this outage. All ways of being away are one reason; each
        code with which the server refuses is another. Both are remembered: some tries of an outage
        may end in one, some in the other."""
        reason: object = "away"
        if isinstance(error, _REFUSALS):
            reason = (type(error), getattr(error.__cause__, "code", None))
        is_news = reason not in self._said
        self._said.add(reason)
        return is_news

    def level(self, error: BaseException) -> int:
        """At which to log it: a warning where it is news."""
        return logging.WARNING if self.is_news(error) else logging.DEBUG

    def settle(self) -> None:
        """It can be used again."""
        self._said.clear()
