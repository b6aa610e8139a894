"""What the egress proxy lets through, decided on values alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import InvalidInput
from fleet.sandbox.egress.rules import (
    STATUS_OF_REFUSAL,
    HostRules,
    ProxyRequest,
    Refused,
    Target,
    choose_addresses,
    parse_authority,
    parse_head,
)

RULES = HostRules.parse(
    ("packages.example", "git.example.com:8443", ".files.example.net", "plain.example:80", "192.0.2.7:443")
)
LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
T = TypeVar("T")
FEW = settings(max_examples=60, deadline=None)


def refusal(text: str, rules: HostRules = RULES) -> str:
    with pytest.raises(Refused) as caught:
        rules.check(parse_authority(text))
    return caught.value.reason


def outcome(work: Callable[[], T]) -> T | Refused:
    try:
        return work()
    except Refused as refused:
        return refused


def head_refusal(head: bytes) -> str:
    with pytest.raises(Refused) as caught:
        parse_head(head)
    return caught.value.reason


@pytest.mark.rule("RC-7", "RT-59")
@pytest.mark.parametrize(
    "text",
    [
        *(
            "packages.example:443",
            "Packages.Example:443",
            "packages.example.:443",
            "git.example.com:8443",
            "plain.example:80",
        ),
        *("a.files.example.net:443", "a.b.FILES.example.net.:443", "192.0.2.7:443"),
    ],
)
def test_listed_target_is_allowed_however_it_is_written(text: str) -> None:
    RULES.check(parse_authority(text))


@pytest.mark.rule("RC-7", "RT-59")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("evil.example:443", "host_not_listed"),
        ("evil.example.:443", "host_not_listed"),
        ("EVIL.example:443", "host_not_listed"),
        ("notpackages.example:443", "host_not_listed"),
        ("packages.example.evil.example:443", "host_not_listed"),
        ("sub.packages.example:443", "host_not_listed"),
        ("files.example.net:443", "host_not_listed"),
        ("xn--80ak6aa92e.files.example.net:443", "host_not_listed"),
        ("packages.example:22", "port_not_listed"),
        ("packages.example:80", "port_not_listed"),
        ("git.example.com:443", "port_not_listed"),
        ("127.0.0.1:443", "address_literal"),
        ("[::1]:443", "address_literal"),
        ("[::ffff:192.0.2.7]:443", "address_literal"),
        ("2130706433:443", "address_literal"),
        ("0x7f000001:443", "address_literal"),
        ("0x7f.1:443", "address_literal"),
        ("0177.0.0.1:443", "address_literal"),
        ("127.1:443", "address_literal"),
        ("192.0.2.007:443", "address_literal"),
        ("[fe80::1%1]:443", "address_literal"),
        ("[192.0.2.7:443", "odd_host"),
        ("[::1]443", "odd_host"),
        ("packages.example@evil.example:443", "odd_host"),
        ("packages.example%00.evil:443", "odd_host"),
        ("packages.example..:443", "odd_host"),
        (".packages.example:443", "odd_host"),
        ("pypi..org:443", "odd_host"),
        ("-packages.example:443", "odd_host"),
        ("pypı.org:443", "odd_host"),
        ("pypi\u3002org:443", "odd_host"),
        ("a" * 64 + ".org:443", "odd_host"),
        ("a." * 130 + "org:443", "odd_host"),
        (":443", "odd_host"),
        ("packages.example", "malformed_request"),
        ("packages.example:", "malformed_request"),
        ("packages.example:0", "malformed_request"),
        ("packages.example:65536", "malformed_request"),
        ("packages.example:443:443", "malformed_request"),
        ("packages.example:+443", "malformed_request"),
        ("packages.example:\u0664\u0664\u0663", "malformed_request"),
    ],
)
def test_any_other_target_is_refused(text: str, reason: str) -> None:
    assert refusal(text) == reason
    assert reason in STATUS_OF_REFUSAL


@pytest.mark.rule("RC-7")
@pytest.mark.parametrize(
    "pattern",
    [
        "",
        ".",
        "*.example.com",
        "https://packages.example",
        "packages.example:0",
        ".com",
        "a b",
        "ex\u00e4mple.com",
        ".10.0.0.1",
    ],
)
def test_pattern_that_is_none_is_named(pattern: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        HostRules.parse(("packages.example", pattern))

    assert caught.value.details["problems"] == [pattern]


@FEW
@given(name=NAMES, port=st.integers(1, 65_535), other=NAMES)
def test_pattern_allows_its_host_and_no_other(name: str, port: int, other: str) -> None:
    rules = HostRules.parse((f"{name}:{port}",))

    rules.check(parse_authority(f"{name.upper()}.:{port}"))
    if other != name:
        assert refusal(f"{other}:{port}", rules) == "host_not_listed"
        assert refusal(f"{other}.{name}:{port}", rules) == "host_not_listed"


@FEW
@given(text=st.text(max_size=300))
def test_authority_of_any_text_is_a_plain_target_or_refused(text: str) -> None:
    found = outcome(lambda: parse_authority(text, default_port=443))

    assert found.host.isascii()
    assert found.host.isprintable()
    if isinstance(found, Target):
        assert found.host == found.host.lower()
        assert 0 < found.port < 65_536


@FEW
@given(address=st.ip_addresses())
def test_address_is_a_target_in_one_form_and_listed_or_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    text = f"[{address.exploded}]:443" if address.version == 6 else f"{address}:443"

    assert parse_authority(text).address == address
    assert refusal(text, HostRules.parse(("packages.example", ".org.example"))) == "address_literal"


@FEW
@given(head=st.binary(max_size=200).map(lambda body: body + b"\r\n\r\n"))
def test_any_head_is_a_request_or_refused(head: bytes) -> None:
    found = outcome(lambda: parse_head(head))

    assert isinstance(found, ProxyRequest) or found.reason in STATUS_OF_REFUSAL


def test_tunnel_names_its_target() -> None:
    request = parse_head(b"CONNECT Packages.Example:443 HTTP/1.1\r\nHost: other.example\r\n\r\n")

    assert (request.is_tunnel, request.target) == (True, Target("packages.example", 443))


@pytest.mark.rule("RC-7")
def test_plain_request_is_rewritten_for_its_checked_target() -> None:
    request = parse_head(
        b"POST http://Plain.example/a?b=1 HTTP/1.1\r\nhost: evil.example\r\nHOST: two\r\nProxy-Authorization: x\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nUpgrade: h2c\r\nAccept: */*\r\ncontent-length: 3\r\n\r\n"
    )

    assert request.head == (
        b"POST /a?b=1 HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\nAccept: */*\r\nContent-Length: 3\r\n\r\n"
    )
    assert (request.target, request.body_bytes, request.is_tunnel) == (Target("plain.example", 80), 3, False)


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        (b"http://plain.example", b"GET / HTTP/1.1\r\nHost: plain.example\r\n"),
        (b"HTTP://plain.example:8080?q", b"GET /?q HTTP/1.1\r\nHost: plain.example:8080\r\n"),
        (b"http://[2001:db8::1]:81/", b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:81\r\n"),
    ],
)
def test_uri_of_a_plain_request_becomes_origin_form(uri: bytes, line: bytes) -> None:
    assert parse_head(b"GET " + uri + b" HTTP/1.0\r\n\r\n").head.startswith(line)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "malformed_request"),
        (b"GET https://packages.example/ HTTP/1.1\r\n\r\n", "malformed_request"),
        (b"GET http://packages.example/#a HTTP/1.1\r\n\r\n", "malformed_request"),
        (b"get http://packages.example/ HTTP/1.1\r\n\r\n", "malformed_request"),
        (b"GET http://packages.example/ HTTP/2.0\r\n\r\n", "malformed_request"),
        (b"GET  http://packages.example/ HTTP/1.1\r\n\r\n", "malformed_request"),
        (b"GET http://packages.example/\x01 HTTP/1.1\r\n\r\n", "malformed_request"),
        (b"GET http://packages.example/ HTTP/1.1\r\n folded: x\r\n\r\n", "malformed_request"),
        (b"GET http://packages.example/ HTTP/1.1\r\nA: b\nHost: evil\r\n\r\n", "malformed_request"),
        (b"GET http://packages.example/ HTTP/1.1\r\nA : b\r\n\r\n", "malformed_request"),
        (
            b"GET http://packages.example/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "malformed_request",
        ),
        (b"GET http://packages.example/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "malformed_request"),
        (b"POST http://packages.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "body_length_unknown"),
        (b"GET http://packages.example@evil.example/ HTTP/1.1\r\n\r\n", "odd_host"),
        (b"GET http://packages.example\\@evil.example/ HTTP/1.1\r\n\r\n", "odd_host"),
        ("GET http://pypı.org/ HTTP/1.1\r\n\r\n".encode(), "odd_host"),
        (b"CONNECT 2130706433:443 HTTP/1.1\r\n\r\n", "address_literal"),
    ],
)
def test_head_that_is_no_plain_request_is_refused(head: bytes, reason: str) -> None:
    assert head_refusal(head) == reason


TARGET = Target("packages.example", 443)


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize(
    "inside",
    [
        *("127.0.0.1", "10.1.2.3", "169.254.169.254", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "::1", "fd00::1", "fe80::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "ff0e::1"),
    ],
)
def test_name_that_also_points_inside_is_refused(inside: str) -> None:
    with pytest.raises(Refused) as caught:
        choose_addresses(["151.101.0.223", inside], target=TARGET)

    assert caught.value.reason == "address_not_public"


def test_addresses_are_those_of_the_lookup_once_each() -> None:
    found = ["151.101.0.223", "2606:4700::1111", "151.101.0.223"]

    assert choose_addresses(found, target=TARGET) == ["151.101.0.223", "2606:4700::1111"]
    assert choose_addresses(["127.0.0.1"], target=TARGET, allowed=("127.0.0.0/8",)) == ["127.0.0.1"]


def test_name_without_address_is_not_resolved() -> None:
    with pytest.raises(Refused) as caught:
        choose_addresses([], target=TARGET)

    assert caught.value.reason == "not_resolved"
