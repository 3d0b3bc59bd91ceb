"""One POST: a target in, a bounded answer out."""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
from collections.abc import Mapping
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from service.errors import PulseQueueError
from service.outbound.hosts import AllowedHost, allowed_hosts
from service.outbound.network import GuardedBackend, GuardedTransport
from service.outbound.reply import FAILURES, Reply, beginning, clean
from service.outbound.targets import Target, target
from service.settings import Settings

_LONGEST_READ_SECONDS = 2.0
"""Spent on an answer's body once its status is known."""
_HEADERS = {"user-agent": "PulseQueue", "accept-encoding": "identity", "connection": "close"}


class NoAnswer(PulseQueueError):
    """The receiver could not be reached, or gave no answer that is HTTP, or none in time."""


class Outbound:
    """Sends to what `allowed` names, and into private networks only with `allow_private`; for one
    event loop.

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
        max_connections: int = 500,
    ) -> None:
        self._allowed, self._allow_private = allowed, allow_private
        self._backend = backend or GuardedBackend(allow_private=allow_private)
        self._tls, self._max_connections = tls, max_connections
        self._slots = asyncio.Semaphore(max_connections)

    @classmethod
    def from_settings(cls, settings: Settings) -> Outbound:
        """Raises `SettingError`."""
        return cls(
            allowed_hosts(settings.webhook_allowed_hosts),
            allow_private=settings.webhook_allow_private_networks,
            max_connections=min(settings.async_concurrency, _open_files() // 2),
        )

    def target(self, url: str) -> Target:
        """The place that `url` names. Raises `TargetRefused`; doesn't ask DNS."""
        return target(url, self._allowed, allow_private=self._allow_private)

    async def post(
        self, place: Target, content: bytes, headers: Mapping[str, str], seconds: float
    ) -> Reply:
        """Posts once, and waits up to `seconds` for the answer's status, whatever it waits for.

        Raises `NoAnswer`, and `Reject` where the network guard refuses the host or the answer is a
        redirect.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            busy = (
                f"not sent, all {self._max_connections} connections were busy for {seconds:.3g} s"
            )
            raise NoAnswer(busy) from None
        try:
            return await self._exchanged(place, content, headers, seconds, deadline)
        finally:
            self._slots.release()

    async def _exchanged(
        self,
        place: Target,
        content: bytes,
        headers: Mapping[str, str],
        seconds: float,
        deadline: float,
    ) -> Reply:
        loop = asyncio.get_running_loop()
        started = loop.time()
        request = self._client.build_request(
            "POST", place.url, content=content, headers=headers, timeout=seconds
        )
        try:
            async with asyncio.timeout_at(deadline):  # httpx's own limits are per step
                response = await self._client.send(request, stream=True)
        except FAILURES as error:
            reason = clean(str(error), 200) or f"no answer within {seconds:.3g} s"
            raise NoAnswer(f"{place.host}:{place.port}: {reason}") from None
        duration_ms = round((loop.time() - started) * 1000)
        try:
            text = await beginning(response, min(loop.time() + _LONGEST_READ_SECONDS, deadline))
        finally:
            await response.aclose()
        return Reply(response.status_code, response.headers, duration_ms, text)

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        """Made when first needed: the web process, which only looks at URLs, never does."""
        return httpx.AsyncClient(
            transport=GuardedTransport(self._backend, self._tls or httpx.create_ssl_context()),
            headers=_HEADERS,
            cookies=_no_cookies(),
            trust_env=False,
            follow_redirects=False,
        )


def _open_files() -> int:
    """How many this process may have open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _no_cookies() -> CookieJar:
    """Keeps none: a client's own jar would hand one event's cookies to the next."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
