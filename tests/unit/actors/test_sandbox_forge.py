"""The sandbox actor asks the forge, because it alone has the token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from actors.sandbox import SandboxShell
from fleet.config.settings import ContainerBackendSettings, LocalForgeSettings
from fleet.forge.port import ChangeOutcome, ChangeRequest, CommitState, OpenedChange
from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import Digest
from fleet.wiring.endpoints import Endpoints
from fleet.workspace.project import LayerNeeds
from tests.support.repositories import git, make_repository

URL = "redis://127.0.0.1:1/0"


def endpoints_of(home: Path) -> Endpoints:
    """A fleet with a local forge and no servers."""
    return Endpoints(
        home=str(home),
        config=None,
        redis_url=URL,
        cache_url=URL,
        neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j",
        neo4j_password="x",
        neo4j_database="neo4j",
        node="local",
        pools={},
        council_shards=1,
        lease_ttl_s=15,
        sweep_s=5,
        record_dir=None,
        code_digest="sha256:" + "0" * 64,
        environ={},
        forge=LocalForgeSettings(kind="local"),
    )


@pytest.mark.rule("RC-105")
async def test_sandbox_actor_opens_the_request_and_sets_the_status(tmp_path: Path) -> None:
    commit = make_repository(tmp_path / "app")
    git(tmp_path / "app", "branch", "fleet/st-1")
    shell = SandboxShell("sandbox:local", endpoints_of(tmp_path / "home"))
    change = ChangeRequest(
        repository=str(tmp_path / "app"), base="main", head="fleet/st-1", title="Add a parser", body="It parses."
    )
    opened = await shell.open_change_request(change)
    await shell.set_commit_status(change.repository, commit, state=CommitState.SUCCESS, description="pass")
    await shell.drain()
    assert isinstance(opened, OpenedChange)
    assert (opened.number, opened.outcome) == (1, ChangeOutcome.OPENED)
    assert len([*(tmp_path / "home" / "change-requests").glob("*/statuses/*.json")]) == 1


async def test_sandbox_actor_without_a_forge_says_what_to_set(tmp_path: Path) -> None:
    shell = SandboxShell("sandbox:local", replace(endpoints_of(tmp_path / "home"), forge=None))
    change = ChangeRequest(repository="team/app", base="main", head="fleet/st-1", title="t", body="")
    with pytest.raises(ConfigError, match=r"set `forge` in fleet\.yaml"):
        await shell.open_change_request(change)
    await shell.drain()


@pytest.mark.rule("RC-111")
async def test_sandbox_actor_of_containers_makes_no_environment_and_says_so(tmp_path: Path) -> None:
    podman = replace(endpoints_of(tmp_path / "home"), sandbox_backend=ContainerBackendSettings(kind="podman"))
    shell = SandboxShell("sandbox:local", podman)
    needs = LayerNeeds("go", "go.sum", {"go.sum": b"", "go.mod": b""})
    made = await shell.make_environment(needs, tree=Digest(f"sha256:{'0' * 64}"), commit="0a" * 20)
    await shell.drain()
    assert made.toolchain is None
    assert "podman makes no environments: what go.sum asks for has to be in its image" in made.summary
