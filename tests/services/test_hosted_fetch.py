"""A repository on another machine is fetched by a run, kept as a story's own store, and checked out without network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet.forge.local.forge import LocalForge
from fleet.forge.port import FetchedRepository
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import PolicyDenied
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.commands.git import GitAddress, parse_git_address
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import Limits, RunResult, RunSpec
from fleet.policy.targets import Targets
from fleet.tools.kit.git import GitTool
from fleet.tools.kit.parts import ToolParts
from fleet.tools.port import ToolContext
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import decode_tree
from fleet.workspace.service.repository_specs import FETCHED, fetch_spec, fetched_of
from fleet.workspace.service.workspace import WorkspaceService
from tests.support.git_http import GitServer, serving_git
from tests.support.hosted_git import TARGET, GitSandbox, git_sandbox
from tests.support.repositories import FILES, commit_all, git, make_repository
from tests.support.sandbox import state_folder
from tests.support.tool_kit import call_of, context_of

pytestmark = pytest.mark.timeout(600)

STORY = StoryId("st-1")


@dataclass
class World:
    """A hosted repository, and a sandbox that may reach it."""

    server: GitServer
    sandbox: GitSandbox
    forge: LocalForge
    blobs: MemoryBlobStore
    source: Path
    base: str
    runs: int = 0

    @property
    def address(self) -> GitAddress:
        return parse_git_address(f"http://forge.example:{self.server.port}/app.git")

    async def run(self, spec: RunSpec) -> RunResult:
        """One run, under a key of its own; nothing that it leaves may hold the token."""
        self.runs += 1
        result = await self.sandbox.supervisor.run(spec, story=STORY, key=RunKey(f"{self.runs:064x}"), epoch=1)
        assert "SECRET" not in result.model_dump_json() + spec.model_dump_json()
        assert not [path for path in self.server.asked if "SECRET" in path]
        return result

    async def fetched(self, result: RunResult) -> FetchedRepository:
        """What a fetch left."""
        facts, pack, index = (result.artifact(path) for path in FETCHED)
        assert facts is not None
        assert pack is not None
        assert index is not None
        found = fetched_of(self.address, await self.blobs.get(facts), pack=pack, pack_index=index)
        assert found is not None
        return found

    async def call(self, op: str, *, role: str = "devops", **facts: Any) -> ToolOutcome:
        """A call of the tool git by an agent, decided already."""
        parts = ToolParts(
            sandbox=self.sandbox.supervisor,
            blobs=self.blobs,
            clock=SystemClock(),
            targets=Targets(git={self.address.place: TARGET}),
        )
        context: ToolContext = context_of(role=role, **facts.pop("context", {}))
        args = {"url": self.address.url} | facts
        return await GitTool(parts).call(call_of("git", op, **args), context)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    source, hosted = tmp_path / "source", tmp_path / "hosted" / "app.git"
    base = make_repository(source)
    git(tmp_path, "clone", "-q", "--bare", str(source), str(hosted))
    git(hosted, "config", "http.receivepack", "true")
    blobs = MemoryBlobStore()
    with state_folder() as state, serving_git(hosted.parent) as server:
        sandbox = await git_sandbox(state, blobs)
        yield World(server, sandbox, LocalForge(state, blobs), blobs, source, base)


@pytest.mark.rule("RC-70", "RT-58", "RT-65")
async def test_fetched_repository_is_checked_out_without_network_and_nobody_sees_the_token(world: World) -> None:
    result = await world.run(fetch_spec(world.address, TARGET))
    assert result.exit_code == 0, result.stdout.text + result.stderr.text
    assert {(d.host, d.port, d.allowed) for d in result.egress} == {("forge.example", world.server.port, True)}
    assert [(a.name, a.role, a.op) for a in world.sandbox.accesses] == [("forge-token", "devops", "fetch")]

    staged = await world.forge.stage_fetched(await world.fetched(result))
    assert (staged.commit, staged.branch) == (world.base, "main")
    asked = len(world.server.asked)
    tree = await WorkspaceService(world.run, world.blobs).checkout(staged)
    assert set(decode_tree(await world.blobs.get(tree))) == set(FILES)
    assert len(world.server.asked) == asked


@pytest.mark.rule("RC-70", "RT-65")
async def test_fetch_with_a_wrong_token_or_none_brings_nothing(world: World) -> None:
    world.sandbox.secrets.put("forge-token", "tok-wrong-SECRET")
    assert (await world.run(fetch_spec(world.address, TARGET))).exit_code == 77
    without = TARGET.model_copy(update={"credentials": None})
    assert (await world.run(fetch_spec(world.address, without))).exit_code == 77


@pytest.mark.rule("RC-7", "RC-70", "RT-58")
async def test_fetch_of_an_unknown_host_reaches_nobody(world: World) -> None:
    elsewhere = parse_git_address(f"http://elsewhere.example:{world.server.port}/app.git")
    result = await world.run(fetch_spec(elsewhere, TARGET))
    assert result.exit_code == 75
    assert world.server.asked == []
    assert {d.allowed for d in result.egress} == {False}


@pytest.mark.rule("RC-70")
async def test_fetch_of_more_than_the_limit_is_refused_by_its_size(world: World) -> None:
    noise = "".join(f"{n * 7919 % 1000003:x}{n:o}" for n in range(700_000))
    commit_all(world.source, {"large.txt": noise})
    git(world.source, "push", "-q", str(world.server.root / "app.git"), "main")
    small = Limits(overall_s=120, idle_s=120, memory_bytes=1 << 30, file_bytes=1 << 20)
    result = await world.run(fetch_spec(world.address, TARGET, limits=small))
    assert result.exit_code == 3, result.stdout.text + result.stderr.text
    assert result.artifact(FETCHED[1]) is None


@pytest.mark.rule("RC-70", "RC-17")
async def test_fetch_from_a_server_that_hangs_ends_with_its_time(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = parse_git_address(f"http://forge.example:{silent.getsockname()[1]}/app.git")
        short = Limits(overall_s=6, idle_s=6, memory_bytes=1 << 30)
        async with asyncio.timeout(60):
            result = await world.run(fetch_spec(address, TARGET, limits=short))
    assert result.status == "timeout"


# As a tool of an agent.


@pytest.mark.rule("RT-42")
async def test_agent_lists_and_fetches_what_the_story_lacks(world: World) -> None:
    staged = await world.forge.stage(str(world.source))
    later = commit_all(world.source, {"later.txt": "x\n"}, "Something later")
    git(world.source, "push", "-q", str(world.server.root / "app.git"), "main")
    listed = await world.call("ls_remote", context={"repository": staged.name})
    assert (listed.outcome, listed.content["refs"]) == ("succeeded", {"refs/heads/main": later}), listed.text

    fetched = await world.call("fetch", branch="main", context={"repository": staged.name})
    assert (fetched.outcome, fetched.content["commit"], fetched.content["ahead"]) == ("succeeded", later, 1)
    assert "Something later" in fetched.text
    assert {a.path for a in fetched.artifacts} == set(FETCHED)
    missing = await world.call("fetch", branch="nothing", context={"repository": staged.name})
    assert (missing.outcome, missing.reason) == ("failed", "refused")


@pytest.mark.rule("RT-42", "RT-58")
async def test_agent_pushes_the_branch_of_its_story_and_no_other(world: World) -> None:
    staged = await world.forge.stage(str(world.source))
    commit = commit_all(world.source, {"made.txt": "new\n"})
    name = git(world.source, "pack-objects", "--revs", "-q", "new", stdin=f"{commit}\n^{world.base}\n".encode())
    pack = await world.blobs.put((world.source / f"new-{name}.pack").read_bytes())
    context = {"repository": staged.name, "packs": (pack,), "effect": "KEYED"}
    wanted = {"branch": "fleet/st-tools", "commit": commit}

    pushed = await world.call("push_branch", context=context, **wanted)
    assert (pushed.outcome, pushed.content) == ("succeeded", {**wanted, "url": world.address.url}), pushed.text
    assert git(world.server.root / "app.git", "rev-parse", "fleet/st-tools") == commit
    for branch in ("main", "fleet/st-other"):
        with pytest.raises(PolicyDenied) as caught:
            await world.call("push_branch", context=context, branch=branch, commit=commit)
        assert caught.value.details["rule_id"] == "branch_not_own"
    heads = git(world.server.root / "app.git", "for-each-ref", "--format=%(refname:short)", "refs/heads")
    assert heads.splitlines() == ["fleet/st-tools", "main"]
    moved = await world.call("push_branch", context=context, branch="fleet/st-tools", commit=world.base)
    assert (moved.outcome, moved.reason) == ("failed", "refused")


@pytest.mark.rule("RT-65")
async def test_agent_whose_role_has_no_grant_of_the_token_is_refused(world: World) -> None:
    with pytest.raises(PolicyDenied):
        await world.call("ls_remote", role="developer")
    assert world.server.asked == []


@pytest.mark.rule("RT-58")
async def test_agent_reaches_no_repository_that_is_not_listed(world: World) -> None:
    with pytest.raises(PolicyDenied) as caught:
        await world.call("ls_remote", url="https://elsewhere.example/a/b")
    assert caught.value.details["rule_id"] == "target_not_listed"
