"""Hints go out together, never hold up who sends them, and are dropped while Redis fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, cast

import pytest
import redis

from service.job import Hint
from service.queue.broker import PulseBroker
from service.web.hint_publisher import HintPublisher
from tests.factories import eventually

pytestmark = pytest.mark.timeout(30)
HINT = Hint("0198c5a8-0000-7000-8000-000000000000", "simulate", "default", "normal")


class Broker:
    """Stands in for the broker: keeps what each call sent; one that is shut makes calls wait."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.tries = 0
        self.fails = False
        self.open = threading.Event()
        self.open.set()

    def enqueue_many(self, hints: Sequence[Hint]) -> None:
        self.tries += 1
        self.open.wait(10)
        if self.fails:
            raise redis.ConnectionError("gone")
        self.calls.append(len(hints))


def _publisher(broker: Broker, **options: Any) -> HintPublisher:
    return HintPublisher(cast(PulseBroker, cast(Any, broker)), **options)


def test_hints_that_wait_are_sent_together() -> None:
    broker = Broker()
    broker.open.clear()
    publisher = _publisher(broker)
    publisher.publish([HINT])
    eventually(lambda: broker.tries == 1)
    for _ in range(100):
        publisher.publish([HINT])
    broker.open.set()
    publisher.stop()
    assert broker.calls == [1, 100]


def test_what_was_taken_is_sent_by_stopping() -> None:
    broker = Broker()
    publisher = _publisher(broker)
    publisher.publish([HINT] * 3)
    publisher.stop()
    assert broker.calls == [3]


def test_while_redis_fails_hints_are_dropped_at_once_and_later_it_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker()
    broker.fails = True
    publisher = _publisher(broker)
    with caplog.at_level(logging.WARNING):
        publisher.publish([HINT])
        eventually(lambda: publisher._is_paused)
        publisher.publish([HINT])
        assert publisher._queue.empty()
    assert caplog.text.count("Redis is unavailable") == 1
    broker.fails = False
    eventually(lambda: not publisher._is_paused)
    publisher.publish([HINT])
    eventually(lambda: broker.calls == [1])
    publisher.stop()
    assert broker.tries == 2


def test_no_more_than_so_many_wait() -> None:
    broker = Broker()
    broker.open.clear()
    publisher = _publisher(broker, most_waiting=10)
    publisher.publish([HINT])
    eventually(lambda: broker.tries == 1)
    for _ in range(50):
        publisher.publish([HINT])
    broker.open.set()
    publisher.stop()
    assert broker.calls == [1, 10]


def test_no_hints_start_no_thread() -> None:
    publisher = _publisher(Broker())
    publisher.publish([])
    assert publisher._thread is None
    publisher.stop()
