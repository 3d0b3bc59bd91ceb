"""Requests that wait for an event's final status.

Workers publish the ids of jobs that have ended on a Redis channel, one message for each batch of
outcomes. Messages can get lost, and Redis can be away: so MongoDB is also asked once a second, for
all that wait together. Both threads live only while somebody waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

import redis

from service.errors import StoreUnavailable
from service.queue.broker import FINISHED_CHANNEL

_log = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
_POLL_CHUNK = 500
_LINGER_SECONDS = 5.0
"""How long the threads stay when nobody waits any more: the next one is often near."""

Waiter = asyncio.Future[None]


class LongPoll:
    """`finals(ids)` asks MongoDB which of them have ended, and may raise `StoreUnavailable`."""

    def __init__(
        self,
        client: redis.Redis,
        finals: Callable[[Sequence[str]], Collection[str]],
        most: int,
    ) -> None:
        self._client, self._finals, self._most = client, finals, most
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Waiter]] = {}
        self._count = 0
        self._poll_now = threading.Event()
        self._somebody = threading.Event()
        self._alive: set[str] = set()
        self._stopped = False

    @contextmanager
    def expect(self, event_id: str) -> Iterator[Waiter | None]:
        """A future that is done when the event has ended; None where too many wait already.

        Look at the event after entering this: what ended before is told to nobody.
        """
        if self._count >= self._most or self._stopped:
            yield None
            return
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._add(event_id, waiter)
        try:
            yield waiter
        finally:
            self._remove(event_id, waiter)

    def tell(self, event_ids: Collection[str]) -> None:
        """These have ended. Thread-safe."""
        with self._lock:
            ended = [w for i in self._waiters.keys() & event_ids for w in self._waiters[i]]
        for waiter in ended:
            with suppress(RuntimeError):  # its loop has ended
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def stop(self) -> None:
        """Ends the threads, and every waiting with them."""
        self._stopped = True
        self._somebody.set()
        self._poll_now.set()
        with self._lock:
            everything = set(self._waiters)
        self.tell(everything)

    def _add(self, event_id: str, waiter: Waiter) -> None:
        with self._lock:
            self._waiters.setdefault(event_id, set()).add(waiter)
            self._count += 1
            self._somebody.set()
            for name, work in (("listen", self._listen), ("poll", self._poll)):
                if name not in self._alive:
                    self._alive.add(name)
                    thread = threading.Thread(target=self._work, args=(name, work), daemon=True)
                    thread.start()

    def _remove(self, event_id: str, waiter: Waiter) -> None:
        with self._lock:
            own = self._waiters[event_id]
            own.remove(waiter)
            if not own:
                del self._waiters[event_id]
            self._count -= 1
            if self._count == 0:
                self._somebody.clear()

    # on the threads

    def _work(self, name: str, work: Callable[[], None]) -> None:
        while self._is_wanted(name):
            try:
                work()
            except (redis.RedisError, StoreUnavailable) as error:
                _log.debug("no news of ended jobs: %s", error)
                time.sleep(_POLL_SECONDS)
            except Exception:
                _log.exception("no news of ended jobs")
                time.sleep(_POLL_SECONDS)

    def _is_wanted(self, name: str) -> bool:
        self._somebody.wait(_LINGER_SECONDS)
        with self._lock:
            if self._count and not self._stopped:
                return True
            self._alive.remove(name)  # the next one who waits starts it again
            return False

    def _listen(self) -> None:
        with self._client.pubsub() as channel:  # type: ignore[no-untyped-call]
            channel.subscribe(FINISHED_CHANNEL)
            while self._count and not self._stopped:
                message = channel.get_message(timeout=_POLL_SECONDS)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    self._poll_now.set()  # for what ended before
                elif message["type"] == "message":
                    self.tell(set(message["data"].decode("ascii", "replace").split(",")))

    def _poll(self) -> None:
        self._poll_now.wait(_POLL_SECONDS)
        self._poll_now.clear()
        with self._lock:
            event_ids = list(self._waiters)
        for start in range(0, len(event_ids), _POLL_CHUNK):
            self.tell(set(self._finals(event_ids[start : start + _POLL_CHUNK])))


def _wake(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_result(None)
