"""One POST: a target in, a bounded answer out."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from weakref import WeakKeyDictionary

import httpx

from service.errors import PulseQueueError
from service.outbound.answers import FAILURES, Answer, beginning, clean
from service.outbound.hosts import AllowedHost, allowed_hosts
from service.outbound.network import GuardedBackend, GuardedTransport
from service.outbound.targets import Target, target
from service.settings import Settings

MAX_CONNECTIONS = 500
"""At once, per event loop: well below the usual limit of 1,024 open files."""
_KEPT_CONNECTIONS, _KEPT_SECONDS = 100, 10.0
_LONGEST_READ_SECONDS = 2.0
"""Spent on an answer's body once its status is known."""
_HEADERS = {"user-agent": "PulseQueue", "accept-encoding": "identity"}


class NoAnswer(PulseQueueError):
    """The receiver could not be reached, or gave no answer that is HTTP, or none in time."""


class Outbound:
    """Sends to what `allowed` names, and into private networks only with `allow_private`.

    `tls` stands in for the certification authorities (certifi's, or those that the environment
    names by SSL_CERT_FILE or SSL_CERT_DIR), `backend` for the network.
    """

    def __init__(
        self,
        allowed: tuple[AllowedHost, ...],
        *,
        allow_private: bool = False,
        backend: GuardedBackend | None = None,
        tls: ssl.SSLContext | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._allowed, self._allow_private = allowed, allow_private
        self._backend = backend or GuardedBackend(allow_private=allow_private)
        self._tls, self._max_connections = tls, max_connections
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient]
        self._clients = WeakKeyDictionary()

    @classmethod
    def from_settings(cls, settings: Settings) -> Outbound:
        """Raises `SettingError`."""
        return cls(
            allowed_hosts(settings.webhook_allowed_hosts),
            allow_private=settings.webhook_allow_private_networks,
        )

    def target(self, url: str) -> Target:
        """The place that `url` names. Raises `TargetRefused`; doesn't ask DNS."""
        return target(url, self._allowed, allow_private=self._allow_private)

    async def post(
        self, place: Target, content: bytes, headers: Mapping[str, str], seconds: float
    ) -> Answer:
        """Posts once, and waits up to `seconds` for the answer's status, whatever it waits for.

        Raises `NoAnswer`, and `Reject` where the network guard refuses the host or the answer is a
        redirect.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        deadline = started + seconds
        try:
            async with asyncio.timeout_at(deadline):  # httpx's own limits are per step
                response = await self._sent(place, content, headers, seconds)
        except FAILURES as error:
            reason = clean(str(error), 200) or f"no answer within {seconds:g} s"
            raise NoAnswer(f"{place.host}:{place.port}: {reason}") from None
        duration_ms = round((loop.time() - started) * 1000)
        try:
            text = await beginning(response, min(loop.time() + _LONGEST_READ_SECONDS, deadline))
        finally:
            await response.aclose()
        return Answer(response.status_code, response.headers, duration_ms, text)

    async def _sent(
        self, place: Target, content: bytes, headers: Mapping[str, str], seconds: float
    ) -> httpx.Response:
        client = self._client()
        request = client.build_request(
            "POST", place.url, content=content, headers=headers, timeout=seconds
        )
        return await client.send(request, stream=True)

    def _client(self) -> httpx.AsyncClient:
        """This event loop's client: connections belong to the loop that made them."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = httpx.AsyncClient(
                transport=GuardedTransport(
                    self._backend,
                    self._tls or httpx.create_ssl_context(),
                    httpx.Limits(
                        max_connections=self._max_connections,
                        max_keepalive_connections=_KEPT_CONNECTIONS,
                        keepalive_expiry=_KEPT_SECONDS,
                    ),
                ),
                headers=_HEADERS,
                cookies=_no_cookies(),
                trust_env=False,
                follow_redirects=False,
            )
        return self._clients[loop]

    async def aclose(self) -> None:
        """Closes this event loop's connections."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


def _no_cookies() -> CookieJar:
    """Keeps none: a client's own jar would hand one event's cookies to the next."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
