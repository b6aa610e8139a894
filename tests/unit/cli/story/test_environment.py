"""`fleet init`, and what `fleet run` does with the environment of a repository before anything is made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fleet.cli.app import app
from fleet.cli.output import Output
from fleet.cli.story.environment import show_needs
from fleet.cli.story.run_options import RunOptions
from fleet.kernel.errors import InvalidInput
from fleet.policy.workspace_file import WORKSPACE_FILE, parse_workspace_file
from tests.support.repositories import make_repository


def said(*argv: str) -> tuple[int, dict[str, Any], str]:
    done = CliRunner().invoke(app, ["init", *argv, "--json"])
    lines = done.stdout.strip().splitlines()
    return done.exit_code, json.loads(lines[-1]) if lines else {}, done.output


def folder(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def options(repo: Path, toolchain: str = "python") -> RunOptions:
    return RunOptions(
        story=None, goal="x", repo=str(repo), model=None, record=None, rigor=None, delegate=(), toolchain=toolchain
    )


@pytest.mark.rule("RC-110")
def test_init_writes_nothing_where_no_run_would_read_it(tmp_path: Path) -> None:
    top = tmp_path / "top"
    make_repository(top, {"web/package.json": "{}"})
    code, _, text = said("--repo", str(top / "web"))
    assert (code, (top / "web" / ".fleet").exists()) == (2, False)
    assert f"repository {top}" in text.replace("\n", " ")
    assert "--root web" in text.replace("\n", " ")
    bare = folder(tmp_path / "bare", {"HEAD": "ref: refs/heads/main\n", "objects/info/x": "", "refs/heads/x": ""})
    code, _, text = said("--repo", str(bare))
    assert (code, (bare / ".fleet").exists()) == (2, False)
    assert "is a bare repository" in text


@pytest.mark.rule("RC-110")
@pytest.mark.door("fleet init", stand_in="it needs no fleet")
def test_init_shows_what_was_found_and_writes_the_file_once(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": '[project]\nname = "x"\ndependencies = ["click"]\n',
        "web/package.json": "{}",
        "node_modules/y/package.json": "{}",
        "tests/test_x.py": "import testcontainers\n",
    }
    repo = folder(tmp_path, files)
    code, found, text = said("--repo", str(repo))
    assert code == 0
    assert [(part["folder"], part["language"], part["is_root"]) for part in found["parts"]] == [
        (".", "python", True),
        ("web", "node", False),
    ]
    assert (found["fetches"], found["written"]) == ("pyproject.toml", True)
    assert found["starts_containers"] == ["tests/test_x.py"]
    assert "starts containers itself" in text
    assert parse_workspace_file((repo / WORKSPACE_FILE).read_bytes()).root == "."
    (repo / WORKSPACE_FILE).write_text('root = "web"\n')
    code, found, _ = said("--repo", str(repo))
    assert (code, found["root"], found["written"], found["fetches"]) == (0, "web", False, None)


@pytest.mark.rule("RC-110")
@pytest.mark.parametrize(
    ("files", "argv", "words"),
    [
        ({}, ("--root", "api"), "api has no manifest"),
        ({WORKSPACE_FILE: "[commands]\ntset = 'x'\n"}, (), "line 2: commands.tset"),
        ({"package.json": '{"dependencies": {"x": "1"}}'}, (), "npm install --package-lock-only"),
    ],
)
def test_init_refuses_what_it_cannot_use(
    tmp_path: Path, files: dict[str, str], argv: tuple[str, ...], words: str
) -> None:
    code, _, text = said("--repo", str(folder(tmp_path, files)), *argv)
    assert (code, words in text) == (2, True), text


def test_init_of_no_directory_and_of_an_empty_one(tmp_path: Path) -> None:
    assert said("--repo", str(tmp_path / "none"))[0] == 2
    code, found, text = said("--repo", str(tmp_path))
    assert (code, found["parts"]) == (0, [])
    assert "no manifest" in text


@pytest.mark.rule("RC-110")
def test_run_shows_what_its_story_will_fetch_and_what_no_run_can_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_repository(tmp_path / "plain")
    make_repository(tmp_path / "asks", {"requirements.txt": "click\n", "tests/test_d.py": "import docker\n"})
    quiet = (options(tmp_path / "plain"), options(tmp_path / "new"), options(tmp_path / "asks", "env:/x"))
    for one in (*quiet, replace(options(tmp_path / "asks"), fetches=False)):
        show_needs(one, Output(as_json=False))
    assert capsys.readouterr().err == ""
    show_needs(options(tmp_path / "asks"), Output(as_json=False))
    told = " ".join(capsys.readouterr().err.split())
    assert "fetches what requirements.txt asks for, once for this lockfile" in told
    assert "starts containers itself" in told


@pytest.mark.rule("RC-110")
def test_run_refuses_a_declared_root_without_a_manifest(tmp_path: Path) -> None:
    make_repository(tmp_path / "r", {WORKSPACE_FILE: 'root = "api"\n', "x.py": ""})
    with pytest.raises(InvalidInput, match="root: api has no manifest"):
        show_needs(options(tmp_path / "r"), Output(as_json=True))
