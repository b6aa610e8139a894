from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleet.adapters.sandbox import identity
from fleet.adapters.sandbox.identity import (
    FIRST_UID,
    UID_COUNT,
    is_alive,
    is_reachable,
    is_root,
    lease_identity,
    process_name,
    reachable_state_root,
)
from fleet.errors import SandboxUnavailable
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
def test_state_root_below_a_closed_folder_moves_to_the_machines() -> None:
    with state_folder() as state:
        assert reachable_state_root(state) == state
        state.mkdir(mode=0o700)
        state.chmod(0o700)
        moved = reachable_state_root(state / "fleet")
        assert moved.parent == identity.SHARED_STATE
        assert moved == reachable_state_root(state / "fleet")
        assert moved != reachable_state_root(state / "other")


@pytest.mark.skipif(is_root(), reason="an ordinary user keeps its own folder")
def test_state_root_of_an_ordinary_user_is_the_preferred(tmp_path: Path) -> None:
    assert reachable_state_root(tmp_path / "x") == tmp_path / "x"
