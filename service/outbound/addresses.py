"""Which addresses a connection may be made to.

The ranges are IANA's special-purpose registries for IPv4 and IPv6 (RFC 6890 and what has updated
it), written out because `ipaddress` knows more or fewer of them from one Python to the next.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Reach(StrEnum):
    """Where an address leads."""

    PUBLIC = "public"
    PRIVATE = "private"
    """This host or a network of one's own: only where a setting says so."""
    NEVER = "never"
    """Link-local, multicast, reserved, a tunnel, a cloud's metadata: no setting opens it."""


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


_NEVER = _networks(
    "0.0.0.0/8",  # this network; Linux connects 0.0.0.0 to itself (RFC 1122)
    "100.64.0.0/10",  # carriers' NAT (RFC 6598), and some clouds' metadata in it
    "168.63.129.16/32",  # Azure's platform services, a public address with private content
    "169.254.0.0/16",  # link-local (RFC 3927), and most clouds' metadata in it
    "192.0.0.0/24",  # IETF protocol assignments (RFC 6890)
    "192.0.2.0/24",  # documentation (RFC 5737), as are the two below
    "198.51.100.0/24",
    "203.0.113.0/24",
    "192.88.99.0/24",  # 6to4 relays (RFC 7526)
    "198.18.0.0/15",  # benchmarks (RFC 2544)
    "224.0.0.0/4",  # multicast (RFC 5771)
    "240.0.0.0/4",  # reserved, and broadcast (RFC 1112, RFC 919)
    "2001::/23",  # IETF protocol assignments, Teredo among them (RFC 2928, RFC 4380)
    "2001:db8::/32",  # documentation (RFC 3849)
    "2002::/16",  # 6to4: tunnels to the IPv4 address inside it (RFC 3056)
    "3fff::/20",  # documentation (RFC 9637)
    "fd00:ec2::/32",  # Amazon's metadata and its neighbours
    "fd20:ce::/32",  # Google's
)
_PRIVATE = _networks(
    "10.0.0.0/8",  # RFC 1918, as are the next two
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "::1/128",
    "fc00::/7",  # unique local (RFC 4193)
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


def may_connect(address: str, *, allow_private: bool) -> bool:
    """Whether a connection to `address` (an IP literal) is allowed."""
    where = reach(address)
    return where is Reach.PUBLIC or (allow_private and where is Reach.PRIVATE)


def reach(address: str) -> Reach:
    """Where `address` leads. Raises `ValueError` for what is no IP literal in its usual form."""
    ip = _embedded(ip_address(address))
    if _within(ip, _NEVER):
        return Reach.NEVER
    if _within(ip, _PRIVATE):
        return Reach.PRIVATE
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return Reach.NEVER
    return Reach.PUBLIC if ip.is_global else Reach.NEVER


def _embedded(ip: Address) -> Address:
    """The IPv4 address that IPv6 stands for, where a connection would end there.

    IPv4-mapped (RFC 4291, 2.5.5.2), and the NAT64 prefix that an IPv6-only network's resolver uses
    (RFC 6052). A network's own NAT64 prefix looks like any address and can't be known here.
    """
    if isinstance(ip, IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip


def _within(ip: Address, networks: tuple[Network, ...]) -> bool:
    return any(ip in network for network in networks if network.version == ip.version)
