"""What an http call may send and where a redirect may lead."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.policy.commands.http import check_target, checked_headers, redirected, target_of

HERE = target_of("https://api.example.org/v1/items?page=2")


def test_address_is_taken_apart() -> None:
    assert HERE == ("https", "api.example.org", 443, "/v1/items?page=2")
    assert HERE.authority == "api.example.org"
    assert target_of("https://API.example.org:8443?x=1#top").url == "https://api.example.org:8443/?x=1"
    assert target_of("http://[::1]:80/").authority == "[::1]"


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize(
    "url",
    [
        "https://user:word@example.org/",
        "https://user@example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://example.org:0/",
        "https://example.org:70000/",
        "https://exam ple.org/",
        "https://example.org\\@evil.org/",
        "https:///path",
        "https://éxample.org/",
        "//example.org/",
        "",
    ],
)
def test_what_is_no_plain_http_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        target_of(url)


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/other", "https://api.example.org/other"),
        ("next", "https://api.example.org/v1/next"),
        ("?page=3", "https://api.example.org/v1/items?page=3"),
        ("//b.example.org/x", "https://b.example.org/x"),
        ("https://b.example.org/y", "https://b.example.org/y"),
    ],
)
def test_redirect_to_a_listed_host_is_followed(location: str, url: str) -> None:
    assert redirected(HERE, location, hosts=[".example.org"]).url == url


@pytest.mark.rule("RT-59")
@pytest.mark.parametrize(
    "location",
    [
        "https://evil.org/",
        "http://api.example.org/",
        "//evil.org/",
        "file:///etc/passwd",
        "https://a:b@api.example.org/",
    ],
)
def test_redirect_elsewhere_is_denied(location: str) -> None:
    with pytest.raises(PolicyDenied) as caught:
        redirected(HERE, location, hosts=["api.example.org"])

    assert caught.value.details["rule_id"] == "RT-59"


def test_plain_http_is_for_listed_hosts() -> None:
    check_target(target_of("http://a.test/"), hosts=["a.test"], plain_hosts=["a.test"])
    with pytest.raises(PolicyDenied, match="https only"):
        check_target(target_of("http://a.test/"), hosts=["a.test"])


def test_headers_of_the_list_are_kept_in_lower_case() -> None:
    given = {"Accept": "text/plain", "Authorization": "secret://token"}

    assert checked_headers(given) == {"accept": "text/plain", "authorization": "secret://token"}


@pytest.mark.rule("RT-59", "RT-65")
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.org"},
        {"cookie": "a=b"},
        {"x-forwarded-for": "1.1.1.1"},
        {"transfer-encoding": "chunked"},
        {"accept": "a\r\nhost: evil.org"},
        {"accept": 3},
        {"accept": "é"},
        {"authorization": "Bearer abcdefgh"},
        {"x-api-key": "abcdefgh"},
    ],
)
def test_other_headers_line_breaks_and_credentials_in_arguments_are_refused(headers: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_headers(headers)

    assert "abcdefgh" not in caught.value.message


@settings(max_examples=150)
@given(st.text("ab/.?:@#\\[]% ", max_size=20))
def test_redirect_never_leaves_the_listed_host(location: str) -> None:
    try:
        after = redirected(HERE, location, hosts=["api.example.org"])
    except PolicyDenied:
        return
    assert after.host == "api.example.org"
    assert urlsplit(after.url).hostname == "api.example.org"
    if location and not location.startswith(("/", "#")) and not any(c in location for c in ".?/"):
        assert after.url == urljoin(HERE.url, location).split("#")[0]
