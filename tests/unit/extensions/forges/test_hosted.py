"""Which change requests a configuration means, and what addresses and tokens are refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import BaseModel

from fleet.extensions.forges.github import github_headers
from fleet.extensions.forges.hosted import ForgeKind, change_requests_for
from fleet.extensions.forges.http import ForgeHttp
from fleet.extensions.forges.http_answers import Asked
from fleet.forge.local.change_requests import LocalChangeRequests
from fleet.forge.port import ChangeRequest, OpenedChange
from fleet.kernel.errors import ConfigError, InvalidInput, ToolFailed
from tests.support.http_stand_in import Reply, Request, serving_http

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


@pytest.mark.parametrize("form", ["{}", "file://{}"])
async def test_local_takes_a_folder(tmp_path: Path, form: str) -> None:
    changes = change_requests_for("local", form.format(tmp_path))
    assert isinstance(changes, LocalChangeRequests)


@pytest.mark.parametrize("url", ["", "https://forge.example/x", "a\0b"])
def test_local_with_something_else_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="folder"):
        change_requests_for("local", url)


async def test_requests_carry_the_headers_of_the_interface() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Reply:
        seen.append(request)
        body = {"ref": "main", "repo": {"full_name": "team/app"}}
        made = {"number": 3, "html_url": "https://x/3", "state": "open", "title": "t", "body": "b"}
        pull = {**made, "base": body, "head": {**body, "ref": "fleet/st-1"}}
        return Reply(raw=b"[]") if request.method == "GET" else Reply(document=pull)

    async with serving_http(answer) as url:
        opened = await change_requests_for("github", url, token=token).open_or_update(CHANGE)

    assert isinstance(opened, OpenedChange)
    assert (opened.number, opened.link) == (3, "https://x/3")
    assert [r.method for r in seen] == ["GET", "POST"]
    assert seen[0].headers["x-github-api-version"] == "2022-11-28"
    assert seen[0].headers["authorization"] == "Bearer tok-SECRET"
    assert seen[0].query["head"] == "team:fleet/st-1"


@asynccontextmanager
async def forge_http(reply: Reply) -> AsyncGenerator[ForgeHttp]:
    async with serving_http(lambda _: reply) as url:
        yield ForgeHttp(url, forge="github", token=token, headers=github_headers)


async def test_redirect_in_a_circle_ends() -> None:
    async with forge_http(Reply(307, headers={"location": "/again"})) as http:
        with pytest.raises(ToolFailed, match="circle"):
            await http.get("x")


@pytest.mark.parametrize(
    "location", ["https://[bad", "//evil.example/x", "https://127.0.0.1/x", "http://127.0.0.1:1/", "http://localhost/x"]
)
async def test_redirect_to_another_origin_is_refused(location: str) -> None:
    async with forge_http(Reply(301, headers={"location": location})) as http:
        with pytest.raises(ToolFailed, match="not sent there"):
            await http.get("x")


async def test_list_without_end_is_given_up() -> None:
    page = Reply(raw=b'[{"name": "x"}]', headers={"link": '<https://x/?page=2>; rel="next"'})
    async with forge_http(page) as http:
        with pytest.raises(ToolFailed, match="400 pages"):
            await http.pages(Entry, "x")


@pytest.mark.parametrize("part", ["", ".", ".."])
async def test_part_of_an_address_that_leads_elsewhere_is_refused(part: str) -> None:
    async with forge_http(Reply()) as http:
        with pytest.raises(InvalidInput, match="cannot be part"):
            await http.get("repos", part)


def test_asked_shows_no_token() -> None:
    asked = Asked("github", "GET", "https://x.example/y", "tok-SECRET")
    assert repr(asked) == "Asked(GET https://x.example/y)"
    assert asked.clean("a\ntok-SECRET b") == "a *** b"
