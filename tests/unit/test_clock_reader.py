from __future__ import annotations

from typing import Any, cast

from service.clock import ServerClock
from service.errors import StoreUnavailable
from service.store import Stores
from service.web.clock_reader import ClockReader
from tests.factories import eventually


class Server:
    """Stands in for `Stores`: its first reading fails."""

    def __init__(self) -> None:
        self.asked = 0

    def read_clock(self, _clock: ServerClock) -> None:
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable("away")


def test_the_clock_is_read_again_and_again_also_after_a_reading_that_failed() -> None:
    server = Server()
    reader = ClockReader(cast(Stores, cast(Any, server)), ServerClock(), every_seconds=0.005)
    reader.start()
    eventually(lambda: server.asked >= 3)
    reader.stop()
    reader.join(5)
    assert not reader.is_alive()
