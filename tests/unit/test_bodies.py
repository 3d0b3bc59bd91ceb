"""Reading bodies from a server that gives them in pieces, late, or never."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from service.api import bodies
from service.api.bodies import Bodies, Refused


class Server:
    """An ASGI `receive` that gives these pieces, each after a wait of its own."""

    def __init__(self, *pieces: bytes, waits: float | None = None, ends: bool = True) -> None:
        self._pieces, self._waits, self._ends = list(pieces), waits, ends
        self.asked = 0

    async def __call__(self) -> dict[str, Any]:
        self.asked += 1
        if self._waits is not None:
            await asyncio.sleep(self._waits)
        if not self._pieces:
            if self._ends:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
        piece, more = self._pieces.pop(0), bool(self._pieces) or not self._ends
        return {"type": "http.request", "body": piece, "more_body": more}


def read(server: Server, *, declared: int | None = None, most: int = 10) -> bytes:
    reader = Bodies(timeout_seconds=0.2)
    try:
        return asyncio.run(reader.read(declared, most, server))
    finally:
        assert reader.held_bytes == 0


def refusal(server: Server, **options: Any) -> int:
    with pytest.raises(Refused) as caught:
        read(server, **options)
    return caught.value.status


@pytest.mark.parametrize("waits", [None, 0, 0.01])
def test_pieces_are_put_together(waits: float | None) -> None:
    assert read(Server(b"abc", b"", b"def", waits=waits)) == b"abcdef"
    assert read(Server(b"abc", waits=waits)) == b"abc"
    assert read(Server(b"", waits=waits)) == b""


def test_what_is_declared_too_large_is_not_even_asked_for() -> None:
    server = Server(b"x" * 11)
    assert refusal(server, declared=11) == 413
    assert server.asked == 0


@pytest.mark.parametrize("waits", [None, 0])
def test_what_turns_out_too_large_is_refused(waits: float | None) -> None:
    assert refusal(Server(b"x" * 11, waits=waits)) == 413
    assert refusal(Server(b"x" * 6, b"x" * 5, b"x", waits=waits)) == 413


def test_what_never_comes_is_given_up() -> None:
    assert refusal(Server(ends=False)) == 408
    assert refusal(Server(b"a", b"b", ends=False)) == 408
    assert refusal(Server(*[b"x"] * 10, waits=0.05)) == 408


def test_a_client_that_has_gone_is_given_up() -> None:
    assert refusal(Server()) == 408
    assert refusal(Server(b"a", ends=False, waits=0.1)) == 408


def test_all_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_HELD_BYTES", 5)
    assert read(Server(b"abc", b"de")) == b"abcde"
    assert refusal(Server(b"abc", b"def")) == 503
