"""MongoDB's clock, read from here.

Every time stamp in the system is the server's: a host whose own clock is an hour off must
neither rescue, dispatch nor expire anything wrongly. Between two readings the monotonic clock
carries it on.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

_DRIFT = 1e-4
"""How far two clocks may drift apart, as a share of the time that passes."""
_RESOLUTION_SECONDS = 0.001


class ServerClock:
    """`now()` is the server's time to a millisecond or so; before a first reading, the host's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset_seconds = time.time() - time.monotonic()
        self._error_seconds, self._read_at = float("inf"), 0.0
        self._last = (0, from_ms(0))

    def learn(self, server_time: datetime, sent: float, received: float) -> None:
        """Takes a reading: `server_time` (UTC) was read between the monotonic times given.

        The true moment is taken as the middle of the round trip (Cristian's algorithm, 1989). A
        reading that took longer than the one before says less than that one does, unless it shows
        that the server's clock has been set; so an event isn't seen to start before it was created
        because one of two processes had to wait for its reading.
        """
        if server_time.tzinfo is None:
            server_time = server_time.replace(tzinfo=UTC)
        offset, error = server_time.timestamp() - (sent + received) / 2, (received - sent) / 2
        with self._lock:
            known_to = self._error_seconds + _DRIFT * (received - self._read_at)
            was_set = abs(offset - self._offset_seconds) > error + known_to + _RESOLUTION_SECONDS
            if error <= known_to or was_set:
                self._offset_seconds, self._error_seconds = offset, error
                self._read_at = received

    def now(self) -> datetime:
        """UTC, aware, cut to whole milliseconds as BSON stores them; within one the same object."""
        now_ms, last = self.now_ms(), self._last
        if last[0] != now_ms:
            self._last = last = now_ms, from_ms(now_ms)
        return last[1]

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int((time.monotonic() + self._offset_seconds) * 1000)

    def host_skew_seconds(self) -> float:
        """How far the host's clock is ahead of the server's."""
        return time.time() - (time.monotonic() + self._offset_seconds)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_ms(milliseconds: int) -> datetime:
    """Milliseconds since 1970 as an aware UTC datetime."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def to_ms(moment: datetime) -> int:
    """An aware datetime as milliseconds since 1970."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)
