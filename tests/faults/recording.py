"""A client that writes down every call it makes, and what it can know of the outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.faults.api import Api
from tests.faults.history import FAIL, OK, UNKNOWN, Call, Document, Recorder


class Client:
    """Posts, gets, cancels and retries through one web process; never raises for an answer."""

    def __init__(self, api: Api, recorder: Recorder) -> None:
        self._api, self._recorder = api, recorder

    def post(
        self, kind: str, payload: Document, *, key: str | None = None, **fields: Any
    ) -> str | None:
        """Posts an event that is wanted once; its id if it was accepted."""
        mark = self._recorder.plan(payload, fields.get("max_attempts", 5))
        return self.post_again(mark, kind, payload, key=key, **fields)

    def post_again(
        self, mark: int, kind: str, payload: Document, *, key: str | None, **fields: Any
    ) -> str | None:
        """The same event once more, as a client does that got no answer."""
        began = time.monotonic()
        answer = _answer(lambda: self._api.try_post(kind, payload, key=key, **fields))
        event = answer.json()["id"] if answer is not None and answer.status_code == 202 else None
        self._note("post", began, answer, event=event, mark=mark, key=key)
        return event

    def post_batch(self, events: list[Document]) -> list[str]:
        """Posts events together (`type`, `payload`, ...); the ids of those that were accepted."""
        marks = [
            self._recorder.plan(event["payload"], event.get("max_attempts", 5)) for event in events
        ]
        began = time.monotonic()
        answer = _answer(lambda: self._api.http.post("/events/batch", json={"events": events}))
        if answer is None or answer.status_code not in (202, 207):
            for event, mark in zip(events, marks, strict=True):
                self._note("post", began, answer, mark=mark, key=event.get("idempotency_key"))
            return []
        results = answer.json()["results"]
        for event, mark, result in zip(events, marks, results, strict=True):
            status = 202 if "id" in result else result["error"]["status"]
            self._add(
                "post",
                began,
                _outcome(status),
                status,
                event=result.get("id"),
                mark=mark,
                key=event.get("idempotency_key"),
            )
        return [result["id"] for result in results if "id" in result]

    def get(self, event: str) -> Document | None:
        began = time.monotonic()
        answer = _answer(lambda: self._api.http.get(f"/events/{event}"))
        seen = answer.json() if answer is not None and answer.status_code == 200 else None
        self._note("get", began, answer, event=event, seen=seen)
        return seen

    def cancel(self, event: str) -> None:
        self._ask("cancel", event)

    def retry(self, event: str) -> None:
        self._ask("retry", event)

    def _ask(self, kind: str, event: str) -> None:
        began = time.monotonic()
        answer = _answer(lambda: self._api.http.post(f"/events/{event}/{kind}"))
        self._note(kind, began, answer, event=event)

    def _note(self, kind: str, began: float, answer: httpx.Response | None, **known: Any) -> None:
        status = None if answer is None else answer.status_code
        self._add(kind, began, _outcome(status), status, **known)

    def _add(self, kind: str, began: float, outcome: str, status: int | None, **known: Any) -> None:
        ended = time.monotonic()
        self._recorder.add(Call(kind, began, ended, outcome, status, **known))


def _answer(call: Callable[[], httpx.Response]) -> httpx.Response | None:
    """None for a time-out, a reset, a refused connection."""
    try:
        return call()
    except httpx.HTTPError:
        return None


def _outcome(status: int | None) -> str:
    if status is None or status >= 500:
        return UNKNOWN
    return OK if status < 400 else FAIL
