"""Connections that can't be led astray: a name is resolved once, all its addresses are checked, and
the connection is made to one of those very addresses.

Checking first and letting the client resolve again would lose to DNS rebinding. TLS still asks for,
and checks, the name of the URL, since only the connecting is replaced.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, cast

import httpcore
import httpx

from service.errors import Reject
from service.outbound.addresses import may_connect
from service.outbound.reply import clean
from service.outbound.resolver import Resolver

Resolve = Callable[[str, int], Awaitable[list[str]]]
_REDIRECTS = range(300, 400)


class AddressRefused(Reject):
    """The host leads, wholly or in part, to where nothing may be sent. Which address it was is not
    said: the message goes to whoever posted the event, and inner names are not theirs to map."""


class Redirected(Reject):
    """The receiver answered with a redirect: final, since following it is what is being guarded
    against, and the same request would get the same answer."""


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """What httpcore opens its connections with; the signatures, time-outs included, are its own."""

    def __init__(
        self,
        resolve: Resolve | None = None,
        *,
        allow_private: bool = False,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._resolve, self._allow_private = resolve or Resolver(), allow_private
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises `AddressRefused` unless every address of `host` may be connected to."""
        addresses = await self._checked(host, port)
        share = None if timeout is None else timeout / max(1, len(addresses))
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in addresses:
            try:
                return _Plain(
                    await self._inner.connect_tcp(
                        address, port, share, local_address, socket_options
                    )
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _checked(self, host: str, port: int) -> list[str]:
        """One bad address among good ones refuses them all: whoever made that entry chose it."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise httpcore.ConnectError(f"the host can't be resolved: {reason}") from None
        if not all(may_connect(a, allow_private=self._allow_private) for a in addresses):
            raise AddressRefused("the host resolves to an address that is not public")
        return addresses

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Always refused."""
        raise AddressRefused("sockets of this host are not public")


class _Plain(httpcore.AsyncNetworkStream):
    """A connection before TLS. httpcore forgets it, open, where a handshake is cancelled."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._inner.aclose()
            raise


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx's way to the network, with no proxy, no redirect and no retry in it.

    Each request has a connection of its own. So each is checked anew, none fails because its
    receiver has just closed a kept one, and none waits in httpcore's pool, whose bookkeeping takes
    time by the square of its connections (13 s of a busy loop for 500 requests at once, against
    0.7 s without).
    """

    def __init__(self, backend: httpcore.AsyncNetworkBackend, tls: ssl.SSLContext) -> None:
        self._backend, self._tls = backend, tls

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpcore's errors as they are, `AddressRefused` and `Redirected`."""
        asked = _core_request(request)
        connection = httpcore.AsyncHTTPConnection(
            asked.url.origin, self._tls, network_backend=self._backend
        )
        try:
            answer = await connection.handle_async_request(asked)
            if answer.status in _REDIRECTS:
                # Raised here, so that no option of the client could ever have it followed.
                location = clean(httpx.Headers(answer.headers).get("location", "nowhere"), 200)
                raise Redirected(f"the receiver redirects ({answer.status}) to {location}")
        except BaseException:
            await connection.aclose()
            raise
        stream = _Stream(cast(AsyncIterable[bytes], answer.stream), connection.aclose)
        return httpx.Response(answer.status, headers=answer.headers, stream=stream)


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
