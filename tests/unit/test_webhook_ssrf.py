"""Tries to make `webhook` send where it must not: at the edge, and past it by what DNS says."""

from __future__ import annotations

import asyncio
import socket

import pytest

from actors import webhook
from service.errors import Reject
from service.outbound.hosts import allowed_hosts
from service.outbound.network import AddressRefused, GuardedBackend
from service.outbound.resolver import Resolver
from service.outbound.sender import NoAnswer, Outbound
from tests.network import NoNetwork

# The most careless operator: every literal is allowed by name, whatever it is worth.
CARELESS = (
    "allowed.example, *.allowed.example, localhost, metadata.google.internal, kubernetes, "
    "127.0.0.1, 127.0.0.1:6379, 10.0.0.1, 192.168.0.1, 172.16.0.1, 169.254.169.254, 0.0.0.0, "
    "100.100.100.200, 168.63.129.16, 224.0.0.1, 255.255.255.255, [::1], [::], [fe80::1], [fc00::1],"
    "[fd00:ec2::254], [::ffff:127.0.0.1], [::ffff:169.254.169.254], [64:ff9b::127.0.0.1],"
    "[64:ff9b::a9fe:a9fe], [64:ff9b:1::7f00:1], [2002:7f00:1::], [::127.0.0.1], [ff02::1],"
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]"
)
PUBLIC = "93.184.215.14"

AT_THE_EDGE = {
    "decimal": "http://2130706433/",
    "decimal of the metadata address": "http://2852039166/latest/meta-data/",
    "octal": "http://0177.0.0.1/",
    "octal, one number": "http://017700000001/",
    "octal, long": "http://0000177.0.0.1/",
    "hexadecimal": "http://0x7f000001/",
    "hexadecimal, dotted": "http://0x7f.0x0.0x0.0x1/",
    "hexadecimal, mixed": "http://0x7f.1/",
    "hexadecimal, upper case": "http://0X7F000001/",
    "hexadecimal, empty": "http://127.0.0.0x/",
    "short": "http://127.1/",
    "short, three": "http://127.0.1/",
    "zero": "http://0/",
    "overflow": "http://4294967297/",
    "five numbers": "http://127.0.0.1.1/",
    "a number too large": "http://256.0.0.1/",
    "loopback": "http://127.0.0.1/",
    "loopback, at a port": "http://127.0.0.1:6379/",
    "loopback, dot at the end": "http://127.0.0.1./",
    "decimal, dot at the end": "http://2130706433./",
    "RFC 1918, 10": "http://10.0.0.1/",
    "RFC 1918, 172": "http://172.16.0.1/",
    "RFC 1918, 192": "http://192.168.0.1/",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "metadata, Alibaba": "http://100.100.100.200/",
    "metadata, Azure": "http://168.63.129.16/",
    "metadata, Amazon's IPv6": "http://[fd00:ec2::254]/",
    "unspecified": "http://0.0.0.0/",
    "multicast": "http://224.0.0.1/",
    "broadcast": "http://255.255.255.255/",
    "IPv6 loopback": "http://[::1]/",
    "IPv6 loopback, long": "http://[0:0:0:0:0:0:0:1]/",
    "IPv6 unspecified": "http://[::]/",
    "IPv6 link-local": "http://[fe80::1]/",
    "IPv6 zone": "http://[fe80::1%25eth0]/",
    "IPv6 zone on loopback": "http://[::1%25lo]/",
    "IPv6 zone, unescaped": "http://[::1%lo]/",
    "IPv6 unique local": "http://[fc00::1]/",
    "IPv6 multicast": "http://[ff02::1]/",
    "IPv4-mapped": "http://[::ffff:127.0.0.1]/",
    "IPv4-mapped, in hexadecimal": "http://[::ffff:7f00:1]/",
    "IPv4-mapped metadata": "http://[::ffff:169.254.169.254]/",
    "IPv4-compatible": "http://[::127.0.0.1]/",
    "NAT64": "http://[64:ff9b::127.0.0.1]/",
    "NAT64 metadata": "http://[64:ff9b::a9fe:a9fe]/",
    "NAT64, local prefix": "http://[64:ff9b:1::7f00:1]/",
    "6to4": "http://[2002:7f00:1::]/",
    "Teredo": "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "IPv4 in brackets": "http://[127.0.0.1]/",
    "two brackets": "http://[[::1]]/",
    "user": "http://allowed.example@127.0.0.1/",
    "user and password": "http://user:password@allowed.example/",
    "user that looks like host and port": "http://allowed.example:80@127.0.0.1/",
    "empty user": "http://@allowed.example/",
    "two at signs": "http://a@allowed.example@127.0.0.1/",
    "escaped at sign": "http://allowed.example%40127.0.0.1/",
    "backslash before an at sign": "http://allowed.example\\@127.0.0.1/",
    "backslash for a slash": "http://127.0.0.1\\.allowed.example/",
    "backslashes for slashes": "http:\\\\127.0.0.1/",
    "fragment before an at sign": "http://127.0.0.1#@allowed.example/",
    "fragment": "http://allowed.example/#x",
    "query before an at sign": "http://127.0.0.1?@allowed.example/",
    "tab": "http://127.0.0.1\t.allowed.example/",
    "line end": "http://allowed.example/\r\nHost: 127.0.0.1",
    "line end in the scheme": "ht\ntp://127.0.0.1/",
    "NUL": "http://127.0.0.1\x00.allowed.example/",
    "blank in front": " http://allowed.example/",
    "blank in the host": "http://127.0.0.1 .allowed.example/",
    "blank of another script": "http://allowed.example/\u3000x",
    "soft hyphen": "http://127.0.0.\u00ad1/",
    "ideographic full stops": "http://127\u30020\u30020\u30021/",
    "fullwidth full stops": "http://127\uff0e0\uff0e0\uff0e1/",
    "fullwidth digits": "http://\uff11\uff12\uff17.0.0.1/",
    "circled letters": "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3.internal/",
    "fullwidth slash": "http://allowed.example\uff0f.evil.example/",
    "fullwidth at sign": "http://allowed.example\uff20127.0.0.1/",
    "escaped host": "http://%31%32%37.0.0.1/",
    "escaped dot": "http://127%2e0%2e0%2e1/",
    "no such port": "http://allowed.example:0/",
    "port too large": "http://allowed.example:65536/",
    "another port": "http://allowed.example:6379/",
    "port in digits of another script": "http://allowed.example:\u0668\u0660/",
    "port with a sign": "http://allowed.example:+80/",
    "two ports": "http://127.0.0.1:80:80/",
    "no host": "http:///etc/passwd",
    "only a port": "http://:80/",
    "only a dot": "http://./",
    "two dots at the end": "http://allowed.example../",
    "empty label": "http://allowed..example/",
    "label too long": f"http://{'a' * 64}.allowed.example/",
    "name too long": f"http://{'a.' * 125}allowed.example/",
    "URL too long": f"http://allowed.example/{'a' * 2048}",
    "file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
    "ftp": "ftp://allowed.example/",
    "unix socket": "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "no scheme": "//allowed.example/",
    "one slash": "http:/allowed.example/",
    "no slash": "http:allowed.example",
    "name with the allowed one in front": "http://allowed.example.evil.example/",
    "name with the allowed one behind": "http://evil-allowed.example/",
    "name that resolves by its number": "http://127.0.0.1.nip.io/",
    "empty": "",
}


class Names:
    """A resolver whose answers change from one question to the next, as a rebinding one's do."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers, self.asked = list(answers), 0

    async def __call__(self, _host: str, _port: int) -> list[str]:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def outbound(names: Names, network: NoNetwork, *, allow_private: bool = False) -> Outbound:
    backend = GuardedBackend(names, allow_private=allow_private, inner=network)
    allowed = allowed_hosts(CARELESS)
    return Outbound(allowed, allow_private=allow_private, backend=backend)


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    made = webhook.Delivery(outbound(Names([PUBLIC]), NoNetwork()))
    monkeypatch.setattr(webhook, "delivery", lambda: made)


@pytest.mark.parametrize("name", AT_THE_EDGE)
@pytest.mark.usefixtures("careless")
def test_refused_at_the_edge(name: str) -> None:
    errors = webhook.WebhookPayload().validate({"url": AT_THE_EDGE[name]})
    assert list(errors) == ["url"]
    assert len(errors["url"]) == 1


@pytest.mark.usefixtures("careless")
def test_the_same_setting_lets_good_urls_pass() -> None:
    for url in ("http://allowed.example/", "https://a.allowed.example./x?y", "http://localhost/"):
        assert webhook.WebhookPayload().validate({"url": url}) == {}


def test_by_default_no_host_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEBHOOK_ALLOWED_HOSTS", raising=False)
    webhook.delivery.cache_clear()
    errors = webhook.WebhookPayload().validate({"url": "https://example.com/"})
    webhook.delivery.cache_clear()
    assert errors == {"url": ["this host and port are not among the allowed ones"]}


BY_DNS = {
    "loopback": ["127.0.0.1"],
    "IPv6 loopback": ["::1"],
    "RFC 1918": ["10.1.2.3"],
    "metadata": ["169.254.169.254"],
    "carriers' NAT": ["100.64.0.1"],
    "unspecified": ["0.0.0.0"],
    "IPv6 unspecified": ["::"],
    "IPv4-mapped": ["::ffff:10.0.0.1"],
    "NAT64": ["64:ff9b::a00:1"],
    "6to4": ["2002:a00:1::1"],
    "link-local with a zone": ["fe80::1%eth0"],
    "unique local": ["fd12:3456::1"],
    "mixed, good one first": [PUBLIC, "127.0.0.1"],
    "mixed, good one last": ["127.0.0.1", PUBLIC],
    "mixed, by family": ["2606:4700::1", PUBLIC, "192.168.1.1"],
}


async def sent(box: Outbound, url: str = "http://allowed.example/") -> None:
    await box.post(box.target(url), b"{}", {}, 5)


@pytest.mark.parametrize("name", BY_DNS)
def test_refused_after_resolution(name: str) -> None:
    network = NoNetwork()
    with pytest.raises(AddressRefused, match="not public") as error:
        asyncio.run(sent(outbound(Names(BY_DNS[name]), network)))
    assert isinstance(error.value, Reject), "no retry mends it"
    assert network.wanted == []
    assert not any(address in str(error.value) for address in BY_DNS[name])


@pytest.mark.parametrize("name", ["metadata", "unspecified", "carriers' NAT", "6to4"])
def test_refused_after_resolution_even_where_private_networks_are_allowed(name: str) -> None:
    network = NoNetwork()
    with pytest.raises(AddressRefused):
        asyncio.run(sent(outbound(Names(BY_DNS[name]), network, allow_private=True)))
    assert network.wanted == []


def test_a_name_rebound_after_the_check_is_not_asked_again() -> None:
    names, network = Names([PUBLIC], ["127.0.0.1"]), NoNetwork()
    with pytest.raises(NoAnswer, match="there is no network here"):
        asyncio.run(sent(outbound(names, network)))
    assert (names.asked, network.wanted) == (1, [PUBLIC])


def test_a_name_rebound_between_edge_and_delivery_is_refused_then() -> None:
    names, network = Names([PUBLIC], ["127.0.0.1"]), NoNetwork()
    box = outbound(names, network)

    async def twice() -> None:
        with pytest.raises(NoAnswer):
            await sent(box)
        with pytest.raises(AddressRefused):
            await sent(box)

    asyncio.run(twice())
    assert network.wanted == [PUBLIC]


def test_each_address_is_tried_and_only_checked_ones() -> None:
    network = NoNetwork()
    with pytest.raises(NoAnswer):
        asyncio.run(sent(outbound(Names([PUBLIC, "2606:4700::1", "1.1.1.1"]), network)))
    assert network.wanted == [PUBLIC, "2606:4700::1", "1.1.1.1"]


def test_a_name_without_addresses_is_tried_again_later() -> None:
    with pytest.raises(NoAnswer, match="no address"):
        asyncio.run(sent(outbound(Names([]), NoNetwork())))


def test_a_resolver_that_fails_is_tried_again_later() -> None:
    async def down(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    box = Outbound(allowed_hosts("allowed.example"), backend=GuardedBackend(down))
    with pytest.raises(NoAnswer, match="can't be resolved: Temporary failure"):
        asyncio.run(sent(box))


def test_localhost_is_refused_by_what_the_systems_resolver_says() -> None:
    network = NoNetwork()
    backend = GuardedBackend(inner=network)
    with pytest.raises(AddressRefused):
        asyncio.run(sent(Outbound(allowed_hosts("localhost"), backend=backend), "http://localhost"))
    assert network.wanted == []


@pytest.mark.parametrize("text", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
def test_number_forms_would_not_pass_the_connect_check_either(text: str) -> None:
    """The system's resolver reads them, so they end as the addresses that they are."""

    async def main() -> None:
        assert await Resolver()(text, 80) == ["127.0.0.1"]
        with pytest.raises(AddressRefused):
            await GuardedBackend(inner=NoNetwork()).connect_tcp(text, 80)

    asyncio.run(main())


def test_unix_sockets_are_refused() -> None:
    with pytest.raises(AddressRefused):
        asyncio.run(GuardedBackend(inner=NoNetwork()).connect_unix_socket("/run/x.sock"))
