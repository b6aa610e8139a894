"""The push script as a process of its own, against git's HTTP backend on loopback."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.git_http import GitServer, serving_git
from tests.support.inside import load
from tests.support.repositories import commit_all, git, make_repository

git_push: Any = load("git_push")

REF = "refs/heads/fleet/st-1"


@dataclass
class World:
    """A repository with one commit more than the server has."""

    source: Path
    server: GitServer
    token: Path
    base: str
    commit: str

    def push(self, *more: str, commit: str = "") -> int:
        """The exit code of the script."""
        url = f"http://127.0.0.1:{self.server.port}/app.git"
        inputs = ["--inputs", str(self.token.parent / "none"), "--repo", str(self.source / ".git")]
        argv = ["--url", url, "--ref", REF, "--commit", commit or self.commit, "--token", str(self.token), *inputs]
        return git_push.main([*argv, *more])

    def branch(self) -> str:
        """Where the server has the branch."""
        return git(self.server.root / "app.git", "for-each-ref", "--format=%(objectname)", REF)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[World]:
    monkeypatch.chdir(tmp_path)
    source, hosted = tmp_path / "source", tmp_path / "hosted" / "app.git"
    base = make_repository(source)
    git(tmp_path, "clone", "-q", "--bare", str(source), str(hosted))
    git(hosted, "config", "http.receivepack", "true")
    token = tmp_path / "token"
    token.write_text("tok-push-SECRET")
    with serving_git(hosted.parent) as server:
        yield World(source, server, token, base, commit_all(source, {"made.txt": "new\n"}))


@pytest.mark.rule("RC-77", "RC-51")
def test_push_twice_makes_the_branch_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert (world.push(), world.push()) == (0, 0)
    assert capsys.readouterr().out == "pushed\npresent\n"
    assert world.branch() == world.commit


@pytest.mark.rule("RT-58")
def test_push_moves_forward_from_the_expected_commit_and_never_back(world: World) -> None:
    git(world.server.root / "app.git", "update-ref", REF, world.base)
    assert world.push() == 1
    assert world.push("--expected", world.base) == 0
    assert world.push("--expected", world.commit, commit=world.base) == 1
    assert world.branch() == world.commit


@pytest.mark.rule("RT-58", "RT-65")
def test_push_with_a_token_that_is_refused_prints_none(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.token.write_text("tok-wrong-SECRET")
    assert world.push() == 77
    said = capsys.readouterr()
    assert "SECRET" not in said.out + said.err
    assert world.branch() == ""


@pytest.mark.parametrize("more", [["--commit", "main"], ["--url", "ssh://h/x"], ["--url", "https://u@h/x"]])
def test_push_with_bad_input_asks_nobody(world: World, more: list[str]) -> None:
    assert world.push(*more) == 2
    assert world.server.asked == []


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("fatal: unable to access 'http://h/': The requested URL returned error: 503", 75),
        ("fatal: unable to access 'http://h/': Could not resolve proxy: x", 75),
        ("error: RPC failed; curl 52 Empty reply from server", 75),
        ("fatal: Authentication failed for 'https://h/'", 77),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", 77),
        ("fatal: unable to access 'https://h/': The requested URL returned error: 403", 77),
        ("fatal: repository 'https://h/' not found", 1),
        (" ! [remote rejected] c -> fleet/st-1 (protected branch hook declined)", 1),
        (" ! [rejected] c -> fleet/st-1 (stale info)", 1),
    ],
)
def test_words_of_git_say_whether_the_same_may_be_asked_again(words: str, code: int) -> None:
    assert git_push.judged(words) == (code, words)
