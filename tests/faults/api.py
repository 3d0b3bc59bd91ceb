"""A plain client of the HTTP API."""

from __future__ import annotations

from typing import Any

import httpx

from tests.faults.waiting import eventually

FINAL = {"completed", "failed", "cancelled"}


class Api:
    """One web process's API; every call has a deadline."""

    def __init__(self, port: int, timeout_seconds: float = 10.0) -> None:
        self.port = port
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=timeout_seconds,
            # A server that is stopped closes idle connections: better not to hold old ones.
            limits=httpx.Limits(
                max_connections=64, max_keepalive_connections=64, keepalive_expiry=2
            ),
            trust_env=False,
        )

    def close(self) -> None:
        self.http.close()

    def post(self, kind: str, payload: dict[str, Any] | None = None, **fields: Any) -> str:
        """Posts an event that must be accepted; its id. `key` becomes its idempotency key."""
        answer = self.try_post(kind, payload, **fields)
        assert answer.status_code == 202, f"{answer.status_code} {answer.text[:500]}"
        return str(answer.json()["id"])

    def try_post(
        self, kind: str, payload: dict[str, Any] | None = None, **fields: Any
    ) -> httpx.Response:
        key = fields.pop("key", None)
        headers = {"Idempotency-Key": key} if key else {}
        body = {"type": kind, "payload": payload or {}, **fields}
        return self.http.post("/events", json=body, headers=headers)

    def post_many(self, events: list[dict[str, Any]]) -> list[str]:
        """Posts a batch of which all must be accepted; the ids."""
        events = [{"payload": {}, **event} for event in events]
        answer = self.http.post("/events/batch", json={"events": events})
        assert answer.status_code == 202, f"{answer.status_code} {answer.text[:500]}"
        return [result["id"] for result in answer.json()["results"]]

    def get(self, event: str) -> dict[str, Any]:
        answer = self.http.get(f"/events/{event}")
        assert answer.status_code == 200, f"{answer.status_code} {answer.text[:500]}"
        return dict(answer.json())

    def health(self) -> dict[str, Any]:
        return dict(self.http.get("/health").json())

    def metrics(self) -> dict[str, Any]:
        return dict(self.http.get("/metrics", headers={"Accept": "application/json"}).json())

    def is_ready(self) -> bool:
        return self.http.get("/health/ready").status_code == 200

    def wait_final(self, event: str, within: float = 10.0) -> dict[str, Any]:
        def final() -> dict[str, Any] | None:
            seen = self.get(event)
            return seen if seen["status"] in FINAL else None

        return eventually(final, f"event {event} is final", within=within) or {}

    def wait_status(self, event: str, status: str, within: float = 10.0) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            seen = self.get(event)
            return seen if seen["status"] == status else None

        return eventually(there, f"event {event} is {status}", within=within) or {}
