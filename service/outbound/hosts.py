"""Host names, in the one form in which they are compared, and the setting that allows them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from service.errors import PulseQueueError, SettingError

DEFAULT_PORTS = {"http": 80, "https": 443}
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ENTRY = re.compile(
    r"(?P<wild>\*\.)?(?P<host>\[[^\[\]]*\]|[^:\[\]]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)


class TargetRefused(PulseQueueError):
    """A URL that nothing may be delivered to. The message says why, for whoever wrote the URL."""


def canonical(text: str) -> str:
    """The host as it is compared, resolved and connected to: IDNA's ASCII form (RFC 5891), lower
    case, no dot at the end; an IPv6 literal (in brackets) without them and compressed.

    Raises `TargetRefused`: for a bad name, and for IPv4 addresses in forms that some resolvers read
    and some don't (decimal, octal, hexadecimal, short).
    """
    if text.startswith("["):
        return _ipv6(text)
    name = _ascii(text).removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):  # what the WHATWG URL standard takes for IPv4
        return _ipv4(name)
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise TargetRefused("the host is not a valid name")
    return name


def _ascii(text: str) -> str:
    lowered = text.lower()
    if lowered.isascii():
        return lowered
    import idna  # large tables, for names that are rare

    try:
        return idna.encode(lowered).decode()
    except UnicodeError:
        raise TargetRefused("the host is not a valid internationalised name") from None


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        raise TargetRefused("an IPv4 address must be four decimal numbers") from None


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text.removeprefix("[").removesuffix("]"))
    except AddressValueError:
        raise TargetRefused("the host is not a valid IPv6 address") from None
    if address.scope_id is not None:
        raise TargetRefused("an IPv6 address must have no zone")
    return address.compressed


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry of the setting. `port` None: the scheme's own (80, 443) and no other."""

    host: str
    subdomains: bool = False
    port: int | None = None

    def allows(self, host: str, port: int, default_port: int) -> bool:
        """Whether it allows a canonical host, at that port."""
        if port != (default_port if self.port is None else self.port):
            return False
        return host.endswith(f".{self.host}") if self.subdomains else host == self.host


def allowed_hosts(text: str) -> tuple[AllowedHost, ...]:
    """Reads `WEBHOOK_ALLOWED_HOSTS`. Raises `SettingError`."""
    entries = [entry.strip() for entry in text.split(",")]
    return tuple(_entry(entry) for entry in entries if entry)


def _entry(text: str) -> AllowedHost:
    match = _ENTRY.fullmatch(text)
    port = int(match["port"]) if match and match["port"] else None
    try:
        if match is None or (port is not None and not 1 <= port <= 65_535):
            raise TargetRefused("it has a scheme, a path, a wrong port or a misplaced *")
        return AllowedHost(canonical(match["host"]), match["wild"] is not None, port)
    except TargetRefused as error:
        raise SettingError(
            f"WEBHOOK_ALLOWED_HOSTS: {text!r} is not a host such as `hooks.example.com`, "
            f"`*.example.com`, `example.com:8443` or `[2001:db8::1]`: {error}"
        ) from None
