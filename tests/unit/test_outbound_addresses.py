"""Which addresses a connection may be made to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.outbound.addresses import Reach, may_connect, reach

PUBLIC = ["1.1.1.1", "93.184.215.14", "172.32.0.1", "100.63.255.255", "100.128.0.0", "2606:4700::1"]
PRIVATE = ["127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255"]
PRIVATE += ["192.168.1.1", "::1", "fc00::1", "fdff::1"]
NEVER = {
    "this network": ["0.0.0.0", "0.1.2.3"],
    "carriers' NAT": ["100.64.0.0", "100.127.255.255", "100.100.100.200"],
    "link-local": ["169.254.0.1", "169.254.169.254", "fe80::1", "febf::1"],
    "site-local, old": ["fec0::1"],
    "metadata": ["fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "192.0.0.192"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "multicast": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1"],
    "unspecified": ["::"],
    "discard": ["100::1"],
    "6to4, even of a public one": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:101:101::1"],
    "6to4 relay": ["192.88.99.1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
    "IPv4-compatible": ["::127.0.0.1", "::1.1.1.1"],
    "a network's own NAT64": ["64:ff9b:1::7f00:1"],
    "IPv4-mapped, link-local": ["::ffff:169.254.169.254", "::ffff:0.0.0.0"],
    "NAT64, link-local": ["64:ff9b::a9fe:a9fe"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_always_be_connected_to(address: str) -> None:
    assert reach(address) is Reach.PUBLIC
    assert may_connect(address, allow_private=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_the_setting(address: str) -> None:
    assert not may_connect(address, allow_private=False)
    assert may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", [a for group in NEVER.values() for a in group])
def test_no_setting_opens_the_rest(address: str) -> None:
    assert not may_connect(address, allow_private=False)
    assert not may_connect(address, allow_private=True)


@pytest.mark.parametrize("address", [a for a in PUBLIC + PRIVATE if "." in a])
@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::"])
def test_ipv6_that_stands_for_ipv4_leads_where_that_does(prefix: str, address: str) -> None:
    assert reach(prefix + address) is reach(address)


@given(st.ip_addresses())
def test_nothing_is_public_that_the_standard_library_calls_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if reach(str(address)) is Reach.PUBLIC and str(address).startswith("64:ff9b::") is False:
        assert address.is_global or getattr(address, "ipv4_mapped", None) is not None
        assert not address.is_multicast


@pytest.mark.parametrize("text", ["", "localhost", "2130706433", "0177.0.0.1", "127.1", "1.1.1.1 "])
def test_what_is_no_usual_literal_is_an_error_not_a_guess(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        reach(text)
