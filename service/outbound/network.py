"""Connections that can't be led astray: a name is resolved once, all its addresses are checked, and
the connection is made to one of those very addresses.

Checking first and letting the client resolve again would lose to DNS rebinding. TLS still asks for,
and checks, the name of the URL, since only the connecting is replaced.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import cast

import httpcore
import httpx

from service.errors import Reject
from service.outbound.addresses import may_connect
from service.outbound.answers import clean

Resolve = Callable[[str, int], Awaitable[list[str]]]
_REDIRECTS = range(300, 400)


class AddressRefused(Reject):
    """The host leads, wholly or in part, to where nothing may be sent. Which address it was is not
    said: the message goes to whoever posted the event, and inner names are not theirs to map."""


class Redirected(Reject):
    """The receiver answered with a redirect: final, since following it is what is being guarded
    against, and the same request would get the same answer."""


async def system_resolve(host: str, port: int) -> list[str]:
    """All addresses of `host`, in the order to try them (RFC 6724). Raises `socket.gaierror`.

    It takes a thread of the loop's own for as long as the resolver does.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """What httpcore opens its connections with."""

    def __init__(
        self,
        resolve: Resolve = system_resolve,
        *,
        allow_private: bool = False,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._resolve, self._allow_private = resolve, allow_private
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises `AddressRefused` unless every address of `host` may be connected to."""
        addresses = await self._checked(host, port)
        share = None if timeout is None else timeout / max(1, len(addresses))
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(
                    address, port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _checked(self, host: str, port: int) -> list[str]:
        """One bad address among good ones refuses them all: whoever made that entry chose it."""
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"the host can't be resolved: {error.strerror}") from None
        if not all(may_connect(a, allow_private=self._allow_private) for a in addresses):
            raise AddressRefused("the host resolves to an address that is not public")
        return addresses

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Always refused."""
        raise AddressRefused("sockets of this host are not public")


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx's way to the network, with no proxy, no redirect and no retry in it."""

    def __init__(
        self, backend: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext, limits: httpx.Limits
    ) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpcore's errors as they are, `AddressRefused` and `Redirected`."""
        answer = await self._pool.handle_async_request(_core_request(request))
        if answer.status in _REDIRECTS:
            await answer.aclose()
            # Raised here, so that no option of the client could ever have it followed.
            location = clean(httpx.Headers(answer.headers).get("location", "nowhere"), 200)
            raise Redirected(f"the receiver redirects ({answer.status}) to {location}")
        stream = _Stream(cast(AsyncIterable[bytes], answer.stream), answer.aclose)
        return httpx.Response(answer.status, headers=answer.headers, stream=stream)

    async def aclose(self) -> None:
        """Closes every connection."""
        await self._pool.aclose()


class _Stream(httpx.AsyncByteStream):
    def __init__(self, parts: AsyncIterable[bytes], close: Callable[[], Awaitable[None]]) -> None:
        self._parts, self._close = parts, close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            yield part

    async def aclose(self) -> None:
        await self._close()


def _core_request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        ),
        headers=request.headers.raw,
        content=cast(httpx.AsyncByteStream, request.stream),
        extensions=request.extensions,
    )
