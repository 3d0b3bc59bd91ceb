"""What stands in for the network below what delivers webhooks."""

from __future__ import annotations

from collections.abc import Iterable

import httpcore


class Network(httpcore.AsyncNetworkBackend):
    """Notes in `wanted` which hosts were to be connected to; `open` says what comes of it."""

    def __init__(self) -> None:
        self.wanted: list[str] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.wanted.append(host)
        return await self.open(port, timeout)

    async def open(self, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:  # noqa: ASYNC109
        raise NotImplementedError


class Detour(Network):
    """Leads every connection to loopback."""

    async def open(self, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:  # noqa: ASYNC109
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", port, timeout)


class NoNetwork(Network):
    """Makes no connection."""

    async def open(self, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:  # noqa: ASYNC109
        raise httpcore.ConnectError("there is no network here")
