"""Addresses of repositories on other machines, and which of them are listed."""

from __future__ import annotations

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.policy.commands.git import GitTarget, git_address, git_target, parse_git_address

OPEN, NARROW, PLAIN = GitTarget(), GitTarget(user="oauth2", credentials="secret://forge"), GitTarget(plain_http=True)
LISTED = {"git.example.org": OPEN, "git.example.org/team/app.git": NARROW, "forge.example:8080/a": PLAIN}


@pytest.mark.rule("RT-58", "RC-70")
@pytest.mark.parametrize(
    ("text", "url", "place", "authority"),
    [
        ("https://Git.Example.org/a/b.git", "https://git.example.org/a/b.git", "git.example.org/a/b", ":443"),
        ("https://git.example.org:443/a/b/", "https://git.example.org/a/b", "git.example.org/a/b", ":443"),
        ("https://git.example.org:8443/a", "https://git.example.org:8443/a", "git.example.org:8443/a", ":8443"),
        ("http://git.example.org/~me/b", "http://git.example.org/~me/b", "git.example.org/~me/b", ":80"),
        ("git@git.example.org:a/b.git", "ssh://git@git.example.org/a/b.git", "git.example.org/a/b", ":22"),
        ("ssh://git@git.example.org:2222/a", "ssh://git@git.example.org:2222/a", "git.example.org:2222/a", ":2222"),
    ],
)
def test_address_has_one_form(text: str, url: str, place: str, authority: str) -> None:
    found = git_address(text)
    assert found is not None
    assert (found.url, found.place, found.authority) == (url, place, f"git.example.org{authority}")
    assert git_address(found.url) == found


@pytest.mark.parametrize("text", ["/srv/app", "./app", "~/app", "../app", "app", "file:///srv/app", "a b"])
def test_folder_is_no_address(text: str) -> None:
    assert git_address(text) is None
    with pytest.raises(InvalidInput):
        parse_git_address(text)


@pytest.mark.rule("RT-58", "RT-65")
@pytest.mark.parametrize(
    "text",
    [
        "https://tok-SECRET@git.example.org/a",
        "https://me:tok-SECRET@git.example.org/a",
        "ssh://git:tok-SECRET@git.example.org/a",
        "https://git.example.org/a?token=x",
        "https://git.example.org/a#x",
        "https://git.example.org/../a",
        "https://git.example.org/-a/b",
        "https://git.example.org/a//b",
        "https://git.example.org",
        "https://git.example.org:0/a",
        "https://git.example.org:99999/a",
        "https://git..example.org/a",
        "https://git.example.org/a\nb",
        "https://-oProxyCommand=x/a",
        "git@host:-oProxyCommand=x",
        "ext::sh -c touch% /tmp/x",
        "git://git.example.org/a",
        "ftp://git.example.org/a",
        "https://git.example.org/" + "a" * 600,
    ],
)
def test_address_of_a_wrong_form_is_refused_and_no_secret_repeated(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        git_address(text)
    assert "SECRET" not in str(caught.value)
    assert caught.value.details["field"] == "repo"


@pytest.mark.rule("RT-58")
@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://git.example.org/team/app", NARROW),
        ("https://git.example.org/team/app.git", NARROW),
        ("https://git.example.org/team/app2", OPEN),
        ("git@git.example.org:x/y", OPEN),
        ("http://git.example.org/x", None),
        ("https://git.example.org.evil.net/x", None),
        ("https://evil.git.example.org/x", None),
        ("https://git.example.org:8443/x", None),
        ("http://forge.example:8080/a/b", PLAIN),
        ("http://forge.example:8080/ab", None),
        ("http://forge.example/a/b", None),
    ],
)
def test_narrowest_listed_place_holds_for_an_address(text: str, target: GitTarget | None) -> None:
    assert git_target(LISTED, parse_git_address(text)) is target
