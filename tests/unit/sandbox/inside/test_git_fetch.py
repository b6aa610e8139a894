"""The fetch script as a process of its own, against git's HTTP backend on loopback."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.git_http import GitServer, serving_git
from tests.support.inside import run_script
from tests.support.repositories import add_hostile_settings, commit_all, git, make_repository


@dataclass
class World:
    """A repository at a server, and a place to fetch it to."""

    source: Path
    server: GitServer
    place: Path
    base: str

    @property
    def token(self) -> Path:
        return self.place.parent / "token"

    def fetch(self, *more: str, name: str = "app.git") -> tuple[int, Any]:
        """Exit code and answer of the script; no word of it may hold the token."""
        url = f"http://127.0.0.1:{self.server.port}/{name}"
        argv = ["--url", url, "--token", str(self.token), "--out", str(self.place / "out"), "--repo", "/nothing", *more]
        done = run_script("git_fetch", *argv, cwd=self.place)
        assert "SECRET" not in done.stdout + done.stderr
        assert not done.stderr
        return done.returncode, json.loads(done.stdout)

    def opened(self) -> Path:
        """What was fetched, as a repository of its own."""
        path = self.place.parent / "opened"
        path.mkdir()
        git(path, "init", "-q", "--bare")
        for ending in ("pack", "idx"):
            (path / "objects" / "pack" / f"pack-{'0' * 40}.{ending}").write_bytes(
                (self.place / "out" / f"fetched.{ending}").read_bytes()
            )
        return path


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    source, hosted, place = tmp_path / "source", tmp_path / "hosted" / "app.git", tmp_path / "place"
    base = make_repository(source)
    git(source, "tag", "-a", "v1", "-m", "one")
    git(tmp_path, "clone", "-q", "--bare", str(source), str(hosted))
    place.mkdir()
    (tmp_path / "token").write_text("tok-push-SECRET")
    with serving_git(hosted.parent) as server:
        yield World(source, server, place, base)
    assert list(place.iterdir()) in ([], [place / "out"])


@pytest.mark.rule("RC-70")
@pytest.mark.parametrize(
    ("ref", "branch"), [(None, "main"), ("main", "main"), ("v1", "v1"), ("refs/heads/main", "main")]
)
def test_fetch_brings_the_whole_ref_as_one_pack(world: World, ref: str | None, branch: str) -> None:
    code, answer = world.fetch(*(["--ref", ref] if ref else []))
    assert (code, answer["data"]["commit"], answer["data"]["branch"]) == (0, world.base, branch), answer
    assert json.loads((world.place / "out" / "fetch.json").read_text()) == answer["data"]
    opened = world.opened()
    assert git(opened, "show", f"{world.base}:demo/core.py").startswith("def one")
    assert "missing" not in git(opened, "fsck", "--full", world.base)


def test_fetch_of_a_commit_id_keeps_to_that_commit(world: World) -> None:
    code, answer = world.fetch("--ref", world.base)
    assert (code, answer["data"]["commit"], answer["data"]["refs"]) == (0, world.base, {})


@pytest.mark.rule("RT-42")
def test_fetch_beside_a_staged_repository_sends_what_is_new_and_tells_it(world: World) -> None:
    new = commit_all(world.source, {"later.txt": "x\n"}, "Something later")
    git(world.source, "push", "-q", str(world.server.root / "app.git"), "main")
    staged = world.place.parent / "staged"
    git(world.source.parent, "clone", "-q", "--bare", str(world.source), str(staged))
    (staged / "HEAD").write_text(world.base + "\n")
    code, answer = world.fetch("--ref", "main", "--repo", str(staged))
    assert (code, answer["data"]["commit"], answer["data"]["ahead"], answer["data"]["behind"]) == (0, new, 1, 0), answer
    assert "Something later" in answer["text"]
    (staged / "HEAD").write_text(new + "\n")
    code, answer = world.fetch("--ref", "main", "--repo", str(staged))
    assert (code, answer["data"]["has_pack"], answer["data"]["commits"]) == (0, False, [])


@pytest.mark.rule("RT-42")
def test_list_names_branches_tags_and_head(world: World) -> None:
    code, answer = world.fetch("--list")
    assert (code, answer["data"]["head"], answer["data"]["left_out"]) == (0, "main", 0)
    assert set(answer["data"]["refs"]) == {"refs/heads/main", "refs/tags/v1"}
    assert answer["data"]["refs"]["refs/heads/main"] == world.base


@pytest.mark.rule("RC-70", "RT-65")
def test_fetch_with_a_token_that_is_refused_brings_nothing_and_shows_none(world: World) -> None:
    world.token.write_text("tok-wrong-SECRET")
    assert world.fetch()[0] == 77
    assert world.fetch("--list")[0] == 77


@pytest.mark.rule("RC-70")
@pytest.mark.parametrize(("status", "code"), [(503, 75), (403, 77), (404, 1), (302, 1)])
def test_fetch_from_a_server_that_refuses_says_whether_it_may_be_repeated(world: World, status: int, code: int) -> None:
    world.server.status = status
    assert world.fetch()[0] == code


@pytest.mark.parametrize(
    "more", [["--ref", "nothing"], ["--ref", "0" * 40], ["--ref", "refs/heads/../main"], ["--ref", "a b"]]
)
def test_fetch_of_what_is_not_there_is_refused_for_good(world: World, more: list[str]) -> None:
    code, answer = world.fetch(*more)
    assert code in (1, 2), answer


def test_fetch_from_a_repository_without_commits_says_so(world: World) -> None:
    git(world.source.parent, "init", "-q", "--bare", str(world.server.root / "empty.git"))
    code, answer = world.fetch(name="empty.git")
    assert code == 1
    assert "no commit yet" in answer["text"]


@pytest.mark.parametrize("url", ["ext::sh -c touch", "ssh://h/x", "https://u:p@h/x", "file:///tmp/x"])
def test_fetch_from_an_address_of_another_kind_asks_nobody(world: World, url: str) -> None:
    assert world.fetch("--url", url)[0] == 2
    assert world.server.asked == []


@pytest.mark.rule("RC-70")
def test_fetch_of_more_than_the_limit_is_ended_and_named(world: World) -> None:
    noise = "".join(f"{n * 7919 % 1000003:x}{n:o}" for n in range(300_000))
    commit_all(world.source, {"large.txt": noise})
    git(world.source, "push", "-q", str(world.server.root / "app.git"), "main")
    code, answer = world.fetch("--max-bytes", "100000")
    assert code == 3, answer
    assert "larger" in answer["text"]


@pytest.mark.rule("RC-70", "RT-58")
def test_fetch_from_a_hostile_repository_starts_nothing_of_it(world: World) -> None:
    marker = world.place.parent / "marker"
    commit_all(
        world.source, {".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = http://127.0.0.1:1/x\n\tupdate = none\n'}
    )
    git(world.source, "push", "-q", str(world.server.root / "app.git"), "main")
    add_hostile_settings(world.source, marker)
    hook = world.place / "hooks"
    code, answer = world.fetch()
    assert code == 0, answer
    assert not marker.exists()
    assert not hook.exists()
    assert all("/x" not in asked for asked in world.server.asked)


@pytest.mark.rule("RC-70", "RT-58")
def test_fetch_of_objects_that_would_run_something_is_refused(world: World) -> None:
    evil = '[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/x\n'
    commit_all(world.source, {".gitmodules": evil})
    git(world.source, "push", "-q", str(world.server.root / "app.git"), "main")
    code, answer = world.fetch()
    assert code == 1, answer
    assert not (world.place / "out").exists()
