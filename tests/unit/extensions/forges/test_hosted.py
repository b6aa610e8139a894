"""Which change requests a configuration means, and what addresses and tokens are refused."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from pydantic import BaseModel

from fleet.extensions.forges.github import github_headers
from fleet.extensions.forges.hosted import ForgeKind, change_requests_for
from fleet.extensions.forges.http import ForgeHttp
from fleet.extensions.forges.http_answers import Asked
from fleet.forge.local.change_requests import LocalChangeRequests
from fleet.forge.port import ChangeRequest, OpenedChange
from fleet.kernel.errors import ConfigError, InvalidInput, ToolFailed

HOSTED: list[ForgeKind] = ["github", "gitlab", "gitea"]
CHANGE = ChangeRequest("team/app", "main", "fleet/st-1", "t", "b")


class Entry(BaseModel):
    """One entry of a list."""

    name: str


def token() -> str:
    return "tok-SECRET"


@pytest.mark.parametrize("kind", HOSTED)
async def test_hosted_forge_is_named_and_hides_its_token(kind: ForgeKind) -> None:
    changes = change_requests_for(kind, "https://forge.example/api/", token=token)
    assert f"ForgeHttp({kind} at https://forge.example/api)" in repr(changes)
    assert "SECRET" not in repr(changes)
    await changes.close()


@pytest.mark.parametrize("kind", HOSTED)
def test_hosted_forge_without_a_token_is_refused(kind: ForgeKind) -> None:
    with pytest.raises(ConfigError, match="token") as caught:
        change_requests_for(kind, "https://user:SECRET@forge.example")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "forge.example",
        "ftp://forge.example",
        "http://forge.example/api",
        "https://user:SECRET@forge.example",
        "https://forge.example/?a=SECRET",
        "https://forge.example/#SECRET",
        "https://[bad",
        "https://",
        "https://forge.example\n.evil",
    ],
)
def test_address_of_wrong_form_is_refused_and_its_secrets_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        change_requests_for("github", url, token=token)
    assert "SECRET" not in f"{caught.value} {caught.value.details}"


async def test_plain_http_is_taken_where_it_is_allowed() -> None:
    changes = change_requests_for("gitea", "http://gitea.internal/api/v1", token=token, allow_http=True)
    assert "http://gitea.internal/api/v1" in repr(changes)
    await changes.close()


@pytest.mark.parametrize("form", ["{}", "file://{}"])
async def test_local_takes_a_folder(tmp_path: Path, form: str) -> None:
    changes = change_requests_for("local", form.format(tmp_path))
    assert isinstance(changes, LocalChangeRequests)
    await changes.close()


@pytest.mark.parametrize("url", ["", "https://forge.example/x", "a\0b"])
def test_local_with_something_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="folder"):
        change_requests_for("local", url)


async def test_requests_leave_by_the_given_transport_with_the_headers_of_the_interface() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        body = {"ref": "main", "repo": {"full_name": "team/app"}}
        made = {"number": 3, "html_url": "https://x/3", "state": "open", "title": "t", "body": "b"}
        pull = {**made, "base": body, "head": {**body, "ref": "fleet/st-1"}}
        return httpx2.Response(200, json=[] if request.method == "GET" else pull)

    transport = httpx2.MockTransport(answer)
    changes = change_requests_for("github", "https://api.github.com", token=token, transport=transport)

    opened = await changes.open_or_update(CHANGE)

    assert isinstance(opened, OpenedChange)
    assert (opened.number, opened.link) == (3, "https://x/3")
    assert [r.method for r in seen] == ["GET", "POST"]
    assert seen[0].headers["x-github-api-version"] == "2022-11-28"
    assert seen[0].headers["authorization"] == "Bearer tok-SECRET"
    assert seen[0].url.params["head"] == "team:fleet/st-1"
    await changes.close()


def forge_http(answer: httpx2.Response) -> ForgeHttp:
    transport = httpx2.MockTransport(lambda _: answer)
    return ForgeHttp("https://x.example", forge="github", token=token, headers=github_headers, transport=transport)


async def test_redirect_in_a_circle_ends() -> None:
    http = forge_http(httpx2.Response(307, headers={"location": "/again"}))
    with pytest.raises(ToolFailed, match="circle"):
        await http.get("x")
    await http.close()


@pytest.mark.parametrize("location", ["https://[bad", "//evil.example/x", "http://x.example/x", "https://x.example:1/"])
async def test_redirect_to_another_origin_is_refused(location: str) -> None:
    http = forge_http(httpx2.Response(301, headers={"location": location}))
    with pytest.raises(ToolFailed, match="not sent there"):
        await http.get("x")
    await http.close()


async def test_list_without_end_is_given_up() -> None:
    http = forge_http(httpx2.Response(200, json=[{"name": "x"}], headers={"link": '<https://x/?page=2>; rel="next"'}))
    with pytest.raises(ToolFailed, match="400 pages"):
        await http.pages(Entry, "x")
    await http.close()


@pytest.mark.parametrize("part", ["", ".", ".."])
async def test_part_of_an_address_that_leads_elsewhere_is_refused(part: str) -> None:
    http = forge_http(httpx2.Response(200))
    with pytest.raises(InvalidInput, match="cannot be part"):
        await http.get("repos", part)
    await http.close()


def test_asked_shows_no_token() -> None:
    asked = Asked("github", "GET", "https://x.example/y", "tok-SECRET")
    assert repr(asked) == "Asked(GET https://x.example/y)"
    assert asked.clean("a\ntok-SECRET b") == "a *** b"
