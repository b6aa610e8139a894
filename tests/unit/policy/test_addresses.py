"""Which addresses may be connected to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.policy.addresses import address_refusal, addresses_refusal, host_is_listed


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "not public"),
        ("127.8.8.8", "not public"),
        ("::1", "not public"),
        ("10.0.0.1", "not public"),
        ("172.16.0.1", "not public"),
        ("192.168.1.1", "not public"),
        ("100.64.0.1", "not public"),
        ("198.18.0.1", "not public"),
        ("192.0.2.1", "not public"),
        ("255.255.255.255", "not public"),
        ("fc00::1", "not public"),
        ("192.0.0.192", "not public"),
        ("192.0.0.9", "not public"),
        ("192.88.99.1", "not public"),
        ("240.1.2.3", "not public"),
        ("fec0::1", "not public"),
        ("5f00::1", "not public"),
        ("::ffff:0:7f00:1", "not public"),
        ("100::1", "not public"),
        ("3fff::1", "not public"),
        ("4000::1", "not public"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "interface"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:93.184.216.34", "within IPv6"),
        ("::ffff:127.0.0.1", "within IPv6"),
        ("64:ff9b::7f00:1", "within IPv6"),
        ("2002:7f00:1::", "within IPv6"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "within IPv6"),
        ("::7f00:1", "within IPv6"),
        ("example.org", "no numeric"),
        ("0x7f.1", "no numeric"),
        ("2130706433", "no numeric"),
        ("127.1", "no numeric"),
        ("", "no numeric"),
    ],
)
def test_address_that_is_not_public_is_refused(address: str, why: str) -> None:
    assert why in (address_refusal(address) or "")


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_address_is_allowed(address: str) -> None:
    assert address_refusal(address) is None


def test_network_of_the_owner_is_allowed_and_nothing_beside_it() -> None:
    assert address_refusal("10.1.2.3", allowed=["10.1.2.0/24"]) is None
    assert address_refusal("127.0.0.1", allowed=["127.0.0.1/32"]) is None
    assert address_refusal("10.1.3.3", allowed=["10.1.2.0/24"]) is not None


@pytest.mark.parametrize("address", ["169.254.169.254", "224.0.0.1", "0.0.0.0", "168.63.129.16"])
def test_metadata_and_multicast_stay_refused_whatever_the_owner_lists(address: str) -> None:
    assert address_refusal(address, allowed=["0.0.0.0/0"]) is not None


@pytest.mark.rule("RT-59")
def test_one_refused_address_refuses_the_name() -> None:
    assert addresses_refusal(["1.1.1.1", "8.8.8.8"]) is None
    assert "127.0.0.1" in (addresses_refusal(["1.1.1.1", "127.0.0.1"]) or "")
    assert "no address" in (addresses_refusal([]) or "")


@settings(max_examples=150)
@given(st.ip_addresses())
def test_address_that_is_allowed_is_global_and_no_multicast(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address_refusal(str(address)) is None:
        assert address.is_global
        assert not address.is_multicast


@settings(max_examples=100)
@given(st.ip_addresses(v=4))
def test_address_mapped_into_ipv6_is_never_allowed(address: ipaddress.IPv4Address) -> None:
    assert address_refusal(f"::ffff:{address}") is not None
    assert address_refusal(f"::ffff:{address}", allowed=["::/0"]) is not None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api.example.org", True),
        ("API.Example.org", True),
        ("api.example.org.", True),
        ("x.api.example.org", False),
        ("a.inner.test", True),
        ("inner.test", False),
        ("evilinner.test", False),
        ("", False),
    ],
)
def test_host_is_listed_by_exact_name_or_suffix(host: str, expected: bool) -> None:
    assert host_is_listed(host, ["api.example.org", ".inner.test"]) is expected
