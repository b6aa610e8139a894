from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleet.kernel.errors import SandboxUnavailable
from fleet.sandbox.backends import identity
from fleet.sandbox.backends.identity import (
    FIRST_UID,
    UID_COUNT,
    is_alive,
    is_reachable,
    is_root,
    lease_identity,
    process_name,
    reachable_state_root,
    toolchain_root,
)
from tests.support.sandbox import state_folder

needs_root = pytest.mark.skipif(not is_root(), reason="only root becomes another user")


def test_process_name_tells_the_living_from_the_dead() -> None:
    name = process_name(os.getpid())

    assert is_alive(name)
    assert not is_alive(name.replace("-", "-9", 1))
    assert not is_alive("999999999-1-00000000")
    assert not is_alive("no process")


@needs_root
@pytest.mark.rule("RC-31")
def test_concurrent_runs_are_different_users(tmp_path: Path) -> None:
    with lease_identity(tmp_path) as one, lease_identity(tmp_path) as two:
        assert (one.uid, two.uid) == (FIRST_UID, FIRST_UID + 1)
        assert one.is_dropped
    with lease_identity(tmp_path) as again:
        assert again.uid == FIRST_UID


@needs_root
def test_identity_when_all_are_busy_is_unavailable(tmp_path: Path) -> None:
    with ExitStack() as held:
        for _ in range(UID_COUNT):
            held.enter_context(lease_identity(tmp_path))
        with pytest.raises(SandboxUnavailable, match="busy"), lease_identity(tmp_path):
            pass


@pytest.mark.skipif(is_root(), reason="an ordinary user stays who it is")
def test_identity_of_an_ordinary_user_is_its_own(tmp_path: Path) -> None:
    with lease_identity(tmp_path) as who:
        assert (who.uid, who.is_dropped) == (os.geteuid(), False)


def test_reachable_path_lets_others_pass_all_the_way() -> None:
    with state_folder() as state:
        state.mkdir()
        program = state / "program"
        program.write_text("")
        program.chmod(0o644)
        assert is_reachable(program)
        assert not is_reachable(program, execute=True)
        program.chmod(0o755)
        assert is_reachable(program, execute=True)
        state.chmod(0o700)
        assert not is_reachable(program)
        assert not is_reachable(state / "missing")


@needs_root
def test_state_root_below_a_closed_folder_moves_to_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "SHARED_STATE", tmp_path / "machine")
    with state_folder() as state:
        assert reachable_state_root(state) == state
        state.mkdir(mode=0o700)
        state.chmod(0o700)
        moved = reachable_state_root(state / "fleet")
        assert moved.parent == identity.SHARED_STATE
        assert moved == reachable_state_root(state / "fleet")
        assert moved != reachable_state_root(state / "other")
        assert (moved / "home").read_text() == f"{state / 'fleet'}\n", "a person can tell whose it is"
        (tmp_path / "file").write_text("")
        monkeypatch.setattr(identity, "SHARED_STATE", tmp_path / "file" / "below")
        assert reachable_state_root(state / "fleet") == tmp_path / "file" / "below" / moved.name, "told by the sandbox"


@needs_root
def test_toolchains_of_all_fleets_of_a_machine_lie_in_one_place_that_runs_can_reach() -> None:
    with state_folder() as state:
        found = toolchain_root(state)
        assert found == identity.SHARED_STATE / "toolchain"
        assert is_reachable(found)
        assert found.stat().st_mode & 0o022 == 0, "only root writes there"


@needs_root
def test_toolchains_stay_with_the_sandbox_where_the_place_of_the_machine_is_no_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(identity, "SHARED_STATE", tmp_path / "hidden")
    assert toolchain_root(tmp_path / "state") == tmp_path / "state" / "toolchain", "no other user reaches it"
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(identity, "SHARED_STATE", tmp_path / "file" / "below")
    assert toolchain_root(tmp_path / "state") == tmp_path / "state" / "toolchain", "it cannot be made"


@pytest.mark.skipif(is_root(), reason="an ordinary user keeps its own folder")
def test_state_root_of_an_ordinary_user_is_the_preferred(tmp_path: Path) -> None:
    assert reachable_state_root(tmp_path / "x") == tmp_path / "x"
    assert toolchain_root(tmp_path / "x") == tmp_path / "x" / "toolchain"
