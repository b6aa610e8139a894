"""The files of the desk: served without a token, under a strict policy, and nothing beside them."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette

from serve_apps.site import CONTENT_POLICY, read_site, site_routes


def _client(folder: Path) -> httpx2.AsyncClient:
    app = Starlette(routes=[*site_routes(read_site(folder))])
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet")


@pytest.fixture
def built(tmp_path: Path) -> Path:
    root = tmp_path / "dist"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<!doctype html><title>Desk</title>")
    (root / "assets" / "index-AbC12345.js").write_text("1")
    (root / "favicon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "secret.txt").write_text("a secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


async def test_front_without_a_built_desk_says_how_to_build_it(tmp_path: Path):
    async with _client(tmp_path) as client:
        response = await client.get("/")
        assert response.status_code == 200
        assert "make desk" in response.text
        assert response.headers["content-security-policy"] == CONTENT_POLICY


@pytest.mark.rule("AP-1", "AP-10")
@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/assets/index-AbC12345.js", "text/javascript"), ("/favicon.svg", "image/svg+xml")],
)
async def test_file_of_the_desk_is_sent_under_the_strict_policy(built: Path, path: str, kind: str):
    async with _client(built) as client:
        response = await client.get(path)
        assert response.headers["content-type"].startswith(kind)
        policy = response.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        again = await client.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_hashed_file_may_be_kept_and_the_page_may_not(built: Path):
    async with _client(built) as client:
        assert "immutable" in (await client.get("/assets/index-AbC12345.js")).headers["cache-control"]
        assert (await client.get("/")).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path", ["/link.txt", "/../secret.txt", "/%2e%2e/secret.txt", "/index.html/x", "/assets", "/x"]
)
async def test_path_that_is_no_file_of_the_desk_is_unknown(built: Path, path: str):
    async with _client(built) as client:
        assert (await client.get(path)).status_code == 404


async def test_desk_is_read_and_never_written(built: Path):
    async with _client(built) as client:
        assert (await client.post("/")).status_code == 405
