"""What to say of a server that can't be used: each reason once, not at every try."""

from __future__ import annotations

from redis.exceptions import AuthenticationError, NoPermissionError

from service.errors import StoreRefused

_REFUSALS = (StoreRefused, AuthenticationError, NoPermissionError)


class Complaints:
    """Of one server, through one outage after the other."""

    def __init__(self) -> None:
        self._last: object = None

    def is_news(self, error: BaseException) -> bool:
        """Whether it failed for a reason other than the last one. That it is away is one reason,
        whatever each try ended in; a refusal is another, by the server's code."""
        reason: object = "away"
        if isinstance(error, _REFUSALS):
            reason = (type(error), getattr(error.__cause__, "code", None))
        is_news, self._last = reason != self._last, reason
        return is_news

    def settle(self) -> None:
        """It can be used again."""
        self._last = None
