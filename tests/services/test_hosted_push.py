"""A branch is pushed to a real git server over smart HTTP, from the sandbox, through the egress proxy."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.forge.local.forge import LocalForge
from fleet.forge.port import StagedRepository
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.commands.git import parse_git_address
from fleet.policy.runs.spec import RunResult
from fleet.trees.memory import MemoryBlobStore
from fleet.workspace.service.repository_specs import push_spec
from tests.support.git_http import GitServer, serving_git
from tests.support.hosted_git import TARGET, GitSandbox, git_sandbox
from tests.support.repositories import add_hostile_settings, commit_all, git, make_repository
from tests.support.sandbox import state_folder

pytestmark = pytest.mark.timeout(600)

STORY, BRANCH = StoryId("st-1"), "fleet/st-1"


@dataclass
class World:
    """A user's clone, the hosted repository it came from, and a sandbox that may push."""

    server: GitServer
    sandbox: GitSandbox
    staged: StagedRepository
    pack: Digest
    base: str
    commit: str
    pushes: int = 0

    @property
    def hosted(self) -> Path:
        """The bare repository of the server."""
        return self.server.root / "app.git"

    def branches(self) -> dict[str, str]:
        """Branch -> commit at the server."""
        lines = git(self.hosted, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads").splitlines()
        return dict(line.split(" ") for line in lines)

    async def push(
        self, *, commit: str = "", expected_old: str | None = None, packs: Sequence[Digest] | None = None
    ) -> RunResult:
        """One push, under a key of its own."""
        self.pushes += 1
        spec = push_spec(
            self.staged.name,
            [self.pack] if packs is None else packs,
            address=parse_git_address(f"http://forge.example:{self.server.port}/app.git"),
            target=TARGET,
            branch=BRANCH,
            commit=commit or self.commit,
            expected_old=expected_old,
        )
        return await self.sandbox.supervisor.run(spec, story=STORY, key=RunKey(f"{self.pushes:064x}"), epoch=1)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    clone, hosted = tmp_path / "clone", tmp_path / "hosted" / "app.git"
    base = make_repository(clone)
    git(tmp_path, "clone", "-q", "--bare", str(clone), str(hosted))
    git(hosted, "config", "http.receivepack", "true")
    blobs = MemoryBlobStore()
    with state_folder() as folder, serving_git(hosted.parent) as server:
        sandbox = await git_sandbox(folder, blobs)
        staged = await LocalForge(state_root=folder, blobs=blobs).stage(str(clone))
        commit = commit_all(clone, {"made.txt": "new\n"})
        pack = await blobs.put(_pack(clone, commit, base))
        add_hostile_settings(clone, tmp_path / "marker")
        yield World(server, sandbox, staged, pack, base, commit)
        assert not (tmp_path / "marker").exists()


def _pack(clone: Path, commit: str, base: str) -> bytes:
    name = git(clone, "pack-objects", "--revs", "-q", str(clone / "new"), stdin=f"{commit}\n^{base}\n".encode())
    return (clone / f"new-{name}.pack").read_bytes()


def said(result: RunResult) -> str:
    return result.stdout.text + result.stderr.text


@pytest.mark.rule("RC-77", "RT-58", "RT-65")
async def test_push_makes_the_branch_and_reaches_that_host_alone_with_a_token_nobody_sees(world: World) -> None:
    result = await world.push()
    assert (result.exit_code, said(result)) == (0, "pushed\n")
    assert world.branches() == {"main": world.base, BRANCH: world.commit}
    assert git(world.hosted, "show", f"{BRANCH}:made.txt") == "new"
    assert {(d.host, d.port, d.allowed) for d in result.egress} == {("forge.example", world.server.port, True)}
    assert "SECRET" not in result.model_dump_json()
    assert not [path for path in world.server.asked if "SECRET" in path]


@pytest.mark.rule("RC-51", "RC-77")
async def test_push_again_changes_nothing_and_sends_nothing(world: World) -> None:
    await world.push()
    before = len([a for a in world.server.asked if a.startswith("POST") and a.endswith("receive-pack")])
    result = await world.push()
    assert (result.exit_code, said(result)) == (0, "present\n")
    assert len([a for a in world.server.asked if a.startswith("POST") and a.endswith("receive-pack")]) == before == 1


@pytest.mark.rule("RC-51", "RC-77")
async def test_push_whose_answer_was_lost_is_found_done_when_it_is_asked_again(world: World) -> None:
    world.server.cut_after_push = True
    first = await world.push()
    assert first.exit_code == 75, said(first)
    assert world.branches()[BRANCH] == world.commit
    assert said(await world.push()) == "present\n"


@pytest.mark.rule("RT-58")
async def test_push_onto_a_branch_that_somebody_moved_is_refused_and_moves_nothing(world: World) -> None:
    git(world.hosted, "update-ref", f"refs/heads/{BRANCH}", world.base)
    result = await world.push()
    assert result.exit_code == 1
    assert f"the branch is at {world.base} and was expected at none" in said(result)
    assert world.branches()[BRANCH] == world.base


@pytest.mark.rule("RT-58")
async def test_push_from_the_expected_old_commit_moves_the_branch_forward_and_never_back(world: World) -> None:
    git(world.hosted, "update-ref", f"refs/heads/{BRANCH}", world.base)
    assert (await world.push(expected_old=world.base)).exit_code == 0
    assert world.branches()[BRANCH] == world.commit
    back = await world.push(commit=world.base, expected_old=world.commit)
    assert back.exit_code == 1, said(back)
    assert world.branches()[BRANCH] == world.commit


@pytest.mark.rule("RC-105", "RT-58")
async def test_push_with_a_wrong_token_is_no_matter_of_waiting_and_shows_none(world: World) -> None:
    world.sandbox.secrets.put("forge-token", "tok-wrong-SECRET")
    result = await world.push()
    assert result.exit_code == 77, said(result)
    assert "SECRET" not in result.model_dump_json()
    assert world.branches() == {"main": world.base}


@pytest.mark.rule("RC-105")
@pytest.mark.parametrize(("status", "code"), [(503, 75), (403, 77), (404, 1)])
async def test_push_to_a_server_that_refuses_says_whether_it_may_be_repeated(
    world: World, status: int, code: int
) -> None:
    world.server.status = status
    result = await world.push()
    assert result.exit_code == code, said(result)


@pytest.mark.rule("RC-77")
async def test_push_is_refused_where_a_hook_of_the_server_protects_the_branch(world: World) -> None:
    hook = world.hosted / "hooks" / "update"
    hook.write_text("#!/bin/sh\necho protected branch >&2\nexit 1\n")
    hook.chmod(0o755)
    result = await world.push()
    assert result.exit_code == 1, said(result)
    assert BRANCH not in world.branches()


async def test_push_of_a_commit_that_is_not_there_is_refused_before_anything_is_asked(world: World) -> None:
    result = await world.push(packs=())
    assert result.exit_code == 1, said(result)
    assert world.server.asked == []
