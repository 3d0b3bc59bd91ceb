"""Which hosts the setting allows."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import SettingError
from service.outbound.hosts import TargetRefused, allowed_hosts, canonical
from service.outbound.targets import parse, target
from service.settings import Settings


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("example.com", "https://example.com/a?b=c"),
        ("example.com", "http://example.com"),
        ("example.com", "HTTPS://EXAMPLE.com:443/"),
        ("Example.COM.", "https://example.com./"),
        (" , example.com ,", "https://example.com/"),
        ("*.example.com", "https://a.b.example.com/"),
        ("example.com:8443", "https://example.com:8443/"),
        ("*.example.com:8443", "http://a.example.com:8443/"),
        ("bücher.example", "https://xn--bcher-kva.example/"),
        ("xn--bcher-kva.example", "https://Bücher.example/ü?ü"),
        ("1.1.1.1", "https://1.1.1.1/"),
        ("[2606:4700:0::1111]:80", "http://[2606:4700::1111]/"),
        ("under_score.example", "https://under_score.example/"),
    ],
)
def test_it_allows(setting: str, url: str) -> None:
    assert target(url, allowed_hosts(setting), allow_private=False).url.scheme in ("http", "https")


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("", "https://example.com/"),
        ("example.com", "https://www.example.com/"),
        ("example.com", "https://notexample.com/"),
        ("example.com", "https://example.com.evil.example/"),
        ("example.com", "https://example.com:8443/"),
        ("example.com", "https://example.com:80/"),
        ("example.com", "http://example.com:443/"),
        ("example.com:8443", "https://example.com/"),
        ("*.example.com", "https://example.com/"),
        ("*.example.com", "https://.example.com/"),
        ("*.example.com", "https://evilexample.com/"),
        ("*.1.1.1.example", "http://1.1.1.1/"),
    ],
)
def test_it_does_not_allow(setting: str, url: str) -> None:
    with pytest.raises(TargetRefused):
        target(url, allowed_hosts(setting), allow_private=True)


@pytest.mark.parametrize(
    "setting",
    [
        "*",
        "*.",
        "a.*.b",
        "https://example.com",
        "example.com/x",
        "example.com:0",
        "a:65536",
        "a b",
        "*.0.0.1",
        "127.1",
        "0x7f000001",
        "[::1",
        "[fe80::1%eth0]",
        "a@b",
        "example..com",
        "a:b:c",
    ],
)
def test_a_wrong_entry_stops_the_start_with_the_settings_name(setting: str) -> None:
    with pytest.raises(SettingError, match="WEBHOOK_ALLOWED_HOSTS: "):
        Settings.from_env({"WEBHOOK_ALLOWED_HOSTS": f"good.example,{setting}"})


def test_a_private_literal_that_is_allowed_still_needs_the_other_setting() -> None:
    allowed = allowed_hosts("127.0.0.1:9000")
    with pytest.raises(TargetRefused, match="not public"):
        target("http://127.0.0.1:9000/", allowed, allow_private=False)
    assert target("http://127.0.0.1:9000/", allowed, allow_private=True).port == 9000


def test_what_is_sent_to_is_the_canonical_form() -> None:
    place = parse("HTTP://ExAmPlE.com.:0080/a/../b?q=%20ü")
    assert str(place.url) == "http://example.com/b?q=%20%C3%BC"


def test_ipv6_is_compared_compressed_and_in_lower_case() -> None:
    assert canonical("[2606:4700:0:0::0ABC]") == "2606:4700::abc"


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_that_is_none_is_named_as_such(port: str) -> None:
    with pytest.raises(TargetRefused, match="port must be from 1 to 65535"):
        parse(f"http://example.com:{port}/")


_PIECES = st.sampled_from(
    [
        "http",
        "https",
        "://",
        ":",
        "/",
        "//",
        "@",
        "#",
        "?",
        "\\",
        "[",
        "]",
        "[::1]",
        "%",
        ".",
        "..",
        "127.0.0.1",
        "0x7f",
        "1",
        "example.com",
        "ü",
        "80",
        "0",
        "\u3002",
        "\uff0f",
        "a",
        "-",
        "_",
    ]
)


@given(st.lists(_PIECES, max_size=12).map(lambda pieces: "http://" + "".join(pieces)))
def test_another_parser_reads_the_same_host_and_port(url: str) -> None:
    with suppress(TargetRefused):
        place = parse(url)
        other = urlsplit(str(place.url))
        assert other.hostname == place.host
        assert (other.port or place.default_port) == place.port
        assert "@" not in other.netloc


@given(st.text(max_size=80))
def test_any_text_is_either_refused_or_read(text: str) -> None:
    for url in (text, f"http://{text}", f"https://example.com{text}"):
        with suppress(TargetRefused):
            assert parse(url).host
