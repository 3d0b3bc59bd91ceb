from __future__ import annotations

from service.breaker import Breaker
from tests.factories import eventually


def test_it_is_open_until_the_probe_succeeds() -> None:
    is_down = True

    def probe() -> None:
        if is_down:
            raise OSError("still down")

    breaker = Breaker("a server", probe, every_seconds=0.01)
    assert not breaker.is_open
    breaker.trip(OSError("gone"))
    assert breaker.is_open
    is_down = False
    eventually(lambda: not breaker.is_open)


def test_it_opens_again() -> None:
    breaker = Breaker("a server", lambda: None, every_seconds=0.01)
    for _ in range(3):
        breaker.trip(OSError("gone"))
        breaker.trip(OSError("gone, says another"))
        assert breaker.is_open
        eventually(lambda: not breaker.is_open)


def test_once_stopped_it_stays_as_it_is() -> None:
    breaker = Breaker("a server", lambda: None, every_seconds=0.01)
    breaker.stop()
    breaker.trip(OSError("gone"))
    assert not breaker.is_open
