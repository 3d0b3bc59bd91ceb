"""Names to addresses: equal questions at once are one, and none holds up the others."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from service.outbound import resolver as module
from service.outbound.resolver import Resolver
from service.outbound.sender import Outbound
from service.settings import Settings

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", 80))] * 2


class NameServer:
    """Stands in for `socket.getaddrinfo`; says nothing of `slow` names until it is released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: list[threading.Thread] = []
        self.released = threading.Event()

    def __call__(self, host: str, _port: int, **_: Any) -> Any:
        self.asked.append(host)
        self.threads.append(threading.current_thread())
        if host.startswith("slow"):
            self.released.wait(10)
        if host == "bad":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return FOUND


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.released.set()
    for thread in made.threads:
        thread.join(5)


async def until_asked(names: NameServer, count: int) -> None:
    async with asyncio.timeout(5):
        while len(names.asked) < count:  # noqa: ASYNC110 - it happens in a thread
            await asyncio.sleep(0.002)


def test_an_address_comes_once(names: NameServer) -> None:
    async def main() -> None:
        assert await Resolver()("a", 80) == ["1.1.1.1"]

    asyncio.run(main())
    assert all(thread.daemon for thread in names.threads), "an exit must not wait for an answer"


def test_equal_questions_at_once_are_one_and_no_answer_is_kept(names: NameServer) -> None:
    async def main() -> None:
        ask = Resolver()
        tries = [asyncio.create_task(ask("slow", 80)) for _ in range(5)]
        await until_asked(names, 1)
        names.released.set()
        assert await asyncio.gather(*tries) == [["1.1.1.1"]] * 5
        assert names.asked == ["slow"]
        await ask("slow", 80)
        assert names.asked == ["slow", "slow"]

    asyncio.run(main())


def test_a_name_server_that_hangs_holds_up_no_other_name(names: NameServer) -> None:
    async def main() -> None:
        ask = Resolver()
        hung = [asyncio.create_task(ask(f"slow{n}", 80)) for n in range(40)]
        await until_asked(names, 40)
        async with asyncio.timeout(2):
            assert await ask("quick", 80) == ["1.1.1.1"]
        names.released.set()
        await asyncio.gather(*hung)

    asyncio.run(main())


def test_questions_beyond_the_limit_wait(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUESTIONS", 2)

    async def main() -> None:
        ask = Resolver()
        tries = [asyncio.create_task(ask(f"slow{n}", 80)) for n in range(3)]
        await until_asked(names, 2)
        assert len(names.asked) == 2
        names.released.set()
        assert await asyncio.gather(*tries) == [["1.1.1.1"]] * 3

    asyncio.run(main())


def test_one_who_gives_up_does_not_take_the_answer_from_the_others(names: NameServer) -> None:
    async def main() -> None:
        ask = Resolver()
        gone, stays = (asyncio.create_task(ask("slow", 80)) for _ in range(2))
        await until_asked(names, 1)
        gone.cancel()
        await asyncio.sleep(0)
        names.released.set()
        assert await stays == ["1.1.1.1"]
        assert gone.cancelled()

    asyncio.run(main())


def test_an_unknown_name_is_an_error_for_all_who_asked(names: NameServer) -> None:
    async def main() -> None:
        ask = Resolver()
        ends = await asyncio.gather(ask("bad", 80), ask("bad", 80), return_exceptions=True)
        assert [type(end) for end in ends] == [socket.gaierror] * 2
        assert names.asked == ["bad"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("files", "wanted"), [(1_024, 512), (resource.RLIM_INFINITY, 2_000), (1_000_000, 2_000)]
)
def test_connections_leave_room_under_the_limit_of_open_files(
    monkeypatch: pytest.MonkeyPatch, files: int, wanted: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    made = Outbound.from_settings(Settings())
    assert made._max_connections == wanted
