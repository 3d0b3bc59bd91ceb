"""Random load through HTTP, by clients that write down what they do. Seeded."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from tests.faults.api import FINAL
from tests.faults.history import Document
from tests.faults.recording import Client

TYPES = ("journal.sync", "journal.async")
_RECENT = 400
_PAUSE_SECONDS = 0.2
_REPEATS = 8
_REPEAT_SECONDS = 0.5


class Load:
    """Several clients at once, each with a random sequence of its own that the seed decides."""

    def __init__(
        self, clients: list[Client], seed: int, rate: float, types: Sequence[str] = TYPES
    ) -> None:
        """`rate`: how many events a second all clients together post at most."""
        self._types = types
        self._stopped = threading.Event()
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._rate, self._posted, self._began = rate, 0, time.monotonic()
        self._threads = [
            threading.Thread(
                target=self._run, args=(client, random.Random(f"{seed}/{i}")), daemon=True
            )
            for i, client in enumerate(clients)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, client: Client, rng: random.Random) -> None:
        while not self._stopped.is_set():
            self._act(client, rng)
            self._stopped.wait(rng.uniform(0, _PAUSE_SECONDS))

    def _act(self, client: Client, rng: random.Random) -> None:
        chance = rng.random()
        if self._posted < self._rate * (time.monotonic() - self._began):
            # Not in one statement: what others post meanwhile would not be counted.
            count = self._post_batch(client, rng) if chance < 0.2 else self._post(client, rng)
            self._posted += count
        elif self._recent:
            event = rng.choice(self._recent)
            if chance < 0.1:
                client.cancel(event)
            elif chance < 0.2:
                client.retry(event)
            else:
                client.get(event)

    def _post(self, client: Client, rng: random.Random) -> int:
        """One event; with a key, it is posted again until there is an answer, and now and then
        once more for nothing."""
        kind, payload, fields = an_event(rng, self._types)
        key = f"{rng.getrandbits(64):x}" if rng.random() < 0.6 else None
        event = client.post(kind, payload, key=key, **fields)
        repeats = _REPEATS if event is None else int(rng.random() < 0.1)
        while key is not None and repeats and not self._stopped.is_set():
            repeats -= 1
            if event is None:
                self._stopped.wait(_REPEAT_SECONDS)
            again = client.post_again(payload["n"], kind, payload, key=key, **fields)
            if again is not None and event is None:
                event, repeats = again, 0
        if event is not None:
            self._recent.append(event)
        return 1

    def _post_batch(self, client: Client, rng: random.Random) -> int:
        events: list[Document] = []
        for _ in range(rng.randint(2, 40)):
            kind, payload, fields = an_event(rng, self._types)
            if rng.random() < 0.3:
                fields["idempotency_key"] = f"{rng.getrandbits(64):x}"
            events.append({"type": kind, "payload": payload, **fields})
        self._recent.extend(client.post_batch(events))
        return len(events)


def an_event(
    rng: random.Random, types: Sequence[str] = TYPES
) -> tuple[str, Document, dict[str, Any]]:
    """A type, a payload and further fields, drawn at random."""
    payload: Document = {}
    fields: dict[str, Any] = {}
    if rng.random() < 0.3:
        payload["duration_ms"] = int(rng.choice([20, 100, 500, 2_000]) * rng.uniform(0.5, 1.5))
    if rng.random() < 0.1:
        payload["fail_times"] = rng.randint(1, 2)
    if rng.random() < 0.02:
        payload["reject"] = True
    if rng.random() < 0.2:
        fields["max_attempts"] = rng.randint(1, 8)
    if rng.random() < 0.05:
        fields["delay_ms"] = rng.randint(100, 3_000)
    fields["priority"] = rng.choice(["high", "normal", "normal", "low"])
    return rng.choice(types), payload, fields


def watch(client: Client, events: list[str], until: threading.Event) -> None:
    """Looks at the same events again and again, final ones too: whether a GET ever goes back."""
    while not until.is_set():
        for event in events[-60:]:
            seen = client.get(event)
            pause = 0.2 if seen is None or seen["status"] in FINAL else 0.02
            if until.wait(pause):
                return
        time.sleep(0.05)
