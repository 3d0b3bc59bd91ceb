"""A URL that a client gave, read once and strictly.

Parsers that disagree are what most tricks live on (Orange Tsai, "A New Era of SSRF", 2017). So the
URL is taken apart here, put together again from canonical parts, and only that goes any further.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.outbound.addresses import may_connect
from service.outbound.hosts import DEFAULT_PORTS, AllowedHost, TargetRefused, canonical

if TYPE_CHECKING:
    import httpx

MAX_URL_CHARACTERS = 2_048
_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.%]+\]|[^:/?#@\[\]\\]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>(?:[/?][^#]*)?)",
    re.IGNORECASE,
)
_IPV4_OR_IPV6 = re.compile(r"[0-9.]+|.*:.*")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: `url` is canonical, and its host is `host`."""

    url: httpx.URL
    host: str
    port: int
    default_port: int


def target(url: str, allowed: Iterable[AllowedHost], *, allow_private: bool) -> Target:
    """The place that `url` names, if requests may go there as far as one can tell without DNS.

    Raises `TargetRefused`.
    """
    place = parse(url)
    if not any(a.allows(place.host, place.port, place.default_port) for a in allowed):
        raise TargetRefused("this host and port are not among the allowed ones")
    if _IPV4_OR_IPV6.fullmatch(place.host) and not may_connect(
        place.host, allow_private=allow_private
    ):
        raise TargetRefused("this address is not public")
    return place


def parse(url: str) -> Target:
    """Takes an absolute http or https URL apart (RFC 3986). Raises `TargetRefused`."""
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None:
        raise TargetRefused(_what_is_wrong(url))
    scheme, host = match["scheme"].lower(), canonical(match["host"])
    port = int(match["port"] or DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65_535:
        raise TargetRefused("the port must be from 1 to 65535")
    return Target(_assembled(scheme, host, port, match["rest"]), host, port, DEFAULT_PORTS[scheme])


def _check_characters(url: str) -> None:
    if len(url) > MAX_URL_CHARACTERS:
        raise TargetRefused(f"longer than {MAX_URL_CHARACTERS} characters")
    if not url.isprintable() or any(c.isspace() for c in url):
        raise TargetRefused("spaces, tabs, line ends and control characters are not allowed")
    if "\\" in url:
        raise TargetRefused("backslashes are not allowed")


def _what_is_wrong(url: str) -> str:
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    if "@" in authority:
        return "credentials in the URL are not allowed; send an Authorization header"
    if "#" in url:
        return "a fragment is not allowed"
    return "not an absolute http or https URL with a host"


def _assembled(scheme: str, host: str, port: int, rest: str) -> httpx.URL:
    """The URL that is sent to; httpx must read it the same way."""
    import httpx

    bracketed = f"[{host}]" if ":" in host else host
    try:
        url = httpx.URL(f"{scheme}://{bracketed}:{port}{rest}")
    except httpx.InvalidURL as error:
        raise TargetRefused(str(error)) from None
    read = (url.scheme, url.raw_host.decode(), url.port or DEFAULT_PORTS[scheme], url.userinfo)
    if read != (scheme, host, port, b""):
        raise TargetRefused("the URL can be read in more than one way")
    return url
