"""The program that fetches and packs inside, with commands that only write what the real ones would."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from fleet.sandbox.folders.build_layer import main, run


class Tools:
    """Stands in for venv, pip, npm, go and cargo, which a unit test has no registry for."""

    def __init__(self, root: Path, *, fails: str = "") -> None:
        self.root, self.fails, self.calls = root, fails, list[tuple[tuple[str, ...], dict[str, str]]]()

    def __call__(self, argv: Sequence[str], env: dict[str, str]) -> int:
        self.calls.append((tuple(argv), env))
        line = " ".join(argv)
        if self.fails and self.fails in line:
            return 7
        layer = self.root / "layer"
        if "venv" in argv:
            (layer / "bin").mkdir(parents=True)
            (layer / "lib/python3.11/site-packages").mkdir(parents=True)
            (layer / "bin/python").symlink_to("/usr/bin/python3")
        elif "install" in line:
            (layer / "bin/tool").write_text(f"#!{layer}/bin/python\nprint()\n")
            (layer / "bin/data").write_bytes(b"\0" + str(layer).encode())
        elif argv[0] == "npm":
            (self.root / "node_modules/x").mkdir(parents=True)
            (self.root / "node_modules/x/index.js").write_text("1")
        elif argv[0] == "go":
            Path(env["GOMODCACHE"], "m").write_text("x")
        elif argv[0] == "cargo":
            Path(env["CARGO_HOME"], "c").write_text("x")
        return 0


def packed(root: Path) -> set[str]:
    with tarfile.open(root / "layer.tar") as archive:
        return {member.name for member in archive.getmembers() if not member.isdir()}


@pytest.mark.rule("RC-111")
def test_layer_of_python_has_its_scripts_at_the_place_where_runs_find_them(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    assert main(["python"], root=tmp_path, call=tools) == 0
    assert packed(tmp_path) == {"bin/tool", "bin/data", "lib/python3.11/site-packages/fleet-tools.pth"}
    assert (tmp_path / "layer/bin/tool").read_text().startswith("#!/environment/bin/python\n")
    assert (tmp_path / "layer/bin/data").read_bytes().endswith(str(tmp_path / "layer").encode())
    assert json.loads((tmp_path / "layer.json").read_text())["files"] == 3


@pytest.mark.rule("RC-111")
@pytest.mark.parametrize(
    ("language", "file"), [("node", "node_modules/x/index.js"), ("go", "mod/m"), ("rust", "cargo/c")]
)
def test_layer_of_a_language_is_packed(
    tmp_path: Path, language: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_userconfig", "before")
    (tmp_path / "Cargo.toml").write_text("[package]\n")
    (tmp_path / "Cargo.lock").write_text("")
    tools = Tools(tmp_path)
    assert main([language, "/run/secrets/registry-config"], root=tmp_path, call=tools) == 0
    assert packed(tmp_path) == {file}
    if language == "rust":
        assert "--locked" in tools.calls[-1][0]


@pytest.mark.parametrize(
    ("language", "fails"), [("python", "venv"), ("python", "pip"), ("node", "npm"), ("go", "go"), ("rust", "cargo")]
)
def test_command_that_fails_ends_it_and_packs_nothing(tmp_path: Path, language: str, fails: str) -> None:
    assert main([language], root=tmp_path, call=Tools(tmp_path, fails=fails)) == 7
    assert not (tmp_path / "layer.tar").exists()


def test_language_without_a_builder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cobol"], root=tmp_path) == 65
    assert "cobol" in capsys.readouterr().err


def test_commands_run_with_the_given_variables() -> None:
    assert run([sys.executable, "-c", "import os, sys; sys.exit(int(os.environ['CODE']))"], {"CODE": "9"}) == 9
