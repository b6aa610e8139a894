"""Programs of Node, Go and Rust are found, named when they are missing, and reached by another user."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.kernel.digest import digest_of
from fleet.policy.runs.spec import RunSpec
from fleet.policy.runs.toolchains import Language, ToolchainConfig
from fleet.sandbox.backends.toolchain import Toolchain
from fleet.sandbox.backends.toolchains import MissingToolchain, Toolchains, find_toolchain
from tests.support.language_repos import path_for
from tests.support.sandbox import state_folder

PYTHON = Toolchain(((Path("/opt/py"), "/toolchain"),), "/toolchain/bin:/usr/bin", (), digest_of(b"python"))


def installation(prefix: Path, *programs: str, says: str = "version 22.3.1") -> Path:
    """A folder whose programs say this version."""
    (prefix / "bin").mkdir(parents=True)
    for name in programs:
        (prefix / "bin" / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (prefix / "bin" / name).chmod(0o755)
    return prefix


def find(
    language: Language, folder: Path | None, root: Path, *, is_dropped: bool = False, system: str = "/none"
) -> Toolchain | MissingToolchain:
    config = ToolchainConfig(language=language, folder=str(folder) if folder else None)
    return find_toolchain("mine", config, python=PYTHON, root=root, is_dropped=is_dropped, system=system)


@pytest.mark.rule("RC-34")
def test_installation_of_the_config_is_bound_at_a_path_of_its_own(tmp_path: Path) -> None:
    prefix = installation(tmp_path / "go", "go", "gofmt", says="go version go1.22.3 linux/amd64")
    found = find("go", prefix, tmp_path)
    assert isinstance(found, Toolchain)
    assert found.binds == (*PYTHON.binds, (prefix, "/toolchains/mine"))
    assert found.path == f"/toolchains/mine/bin:{PYTHON.path}"
    assert dict(found.env) == {"GOROOT": "/toolchains/mine"}
    other = find("go", installation(tmp_path / "new", "go", "gofmt", says="go1.23"), tmp_path)
    assert isinstance(other, Toolchain)
    assert other.digest != found.digest


@pytest.mark.rule("RC-46")
@pytest.mark.parametrize(
    ("language", "programs", "says", "reason"),
    [
        ("go", ("go",), "go1.22", "lacks gofmt; install Go"),
        ("node", (), "v22.1.0", "lacks node; install Node.js 20"),
        ("node", ("node",), "v18.20.1", "is too old (18.20.1); install Node.js 20"),
        ("node", ("node",), "hello", "does not run; install Node.js 20"),
        ("rust", ("cargo", "rustc"), "1.80.0", "cc is not installed; install cargo, rustc and a C linker"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(
    tmp_path: Path, language: Language, programs: tuple[str, ...], says: str, reason: str
) -> None:
    missing = find(language, installation(tmp_path / "here", *programs, says=says), tmp_path)
    assert isinstance(missing, MissingToolchain)
    assert reason in missing.message
    assert "toolchains.mine.folder" in missing.message
    result = missing.result(RunSpec(argv=("go",), toolchain="mine", keep_tree=True, tree=digest_of(b"tree")))
    assert (result.status, result.reason, result.exit_code) == ("error", "image_unavailable", None)
    assert result.stderr.text == f"{missing.message}\n"
    assert result.tree_out == digest_of(b"tree")


def test_rust_finds_a_linker_on_the_system(tmp_path: Path) -> None:
    installation(tmp_path / "system", "cc")
    prefix = installation(tmp_path / "rust", "cargo", "rustc", says="rustc 1.80.0")
    assert isinstance(find("rust", prefix, tmp_path, system=str(tmp_path / "system/bin")), Toolchain)


def test_python_is_the_one_that_every_run_has(tmp_path: Path) -> None:
    assert find("python", None, tmp_path) is PYTHON


def test_hidden_installation_is_linked_once_without_what_no_run_needs() -> None:
    with state_folder() as state:
        prefix = installation(state / "closed" / "node", "node", says="v20.19.0")
        (prefix / "share").mkdir()
        (prefix / "lib").mkdir()
        (prefix / "lib" / "private.js").write_text("secret")
        (prefix / "lib" / "private.js").chmod(0o600)
        (prefix / "lib" / "link.js").symlink_to("private.js")
        (state / "closed").chmod(0o700)
        first = find("node", prefix, state / "chains", is_dropped=True)
        again = find("node", prefix, state / "chains", is_dropped=True)
        assert isinstance(first, Toolchain)
        assert first == again
        source = first.binds[-1][0]
        assert source.is_relative_to(state / "chains")
        assert sorted(p.name for p in source.iterdir()) == ["bin", "lib"]
        assert (source / "bin/node").samefile(prefix / "bin/node")
        assert (source / "lib/private.js").stat().st_mode & 0o777 == 0o644
        assert (prefix / "lib/private.js").stat().st_mode & 0o777 == 0o600
        assert (source / "lib/link.js").is_symlink()


async def test_missing_toolchain_is_looked_for_again_and_a_found_one_is_kept(tmp_path: Path) -> None:
    config = {"python": ToolchainConfig(language="python")}
    config["node"] = ToolchainConfig(language="node", folder=str(tmp_path / "node"))
    chains = Toolchains(config, tmp_path, is_dropped=False)
    assert chains.names == ("python", "node")
    assert isinstance(await chains.named("node", python=PYTHON), MissingToolchain)
    program = installation(tmp_path / "node", "node") / "bin/node"
    found = await chains.named("node", python=PYTHON)
    assert isinstance(found, Toolchain)
    program.unlink()
    assert await chains.named("node", python=PYTHON) is found


@pytest.mark.parametrize("language", ["go", "node", "rust"])
def test_installation_of_this_machine_is_found_by_itself(tmp_path: Path, language: Language) -> None:
    path_for(language)
    config = ToolchainConfig(language=language)
    found = find_toolchain(language, config, python=PYTHON, root=tmp_path, is_dropped=False)
    assert isinstance(found, Toolchain), found
    assert found.path.endswith(f"/bin:{PYTHON.path}")
