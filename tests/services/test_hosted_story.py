"""Whole stories on a repository of another machine: fetched, worked on without network, pushed back (RC-70, RC-77)."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.ids import StoryId
from fleet.owner.journal.steps import StepPolicy
from fleet.policy.commands.git import GitTarget
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore
from tests.support.git_http import GitServer, serving_git
from tests.support.git_ssh import serving_ssh
from tests.support.hosted_git import TARGET, TOKEN, GitSandbox, git_sandbox
from tests.support.repositories import git
from tests.support.rules import step_policy
from tests.support.stores import eventually
from tests.support.team import ADA, Team, team
from tests.support.team_models import RECORDED, demo_repository, demo_story

pytestmark = pytest.mark.timeout(600)


@dataclass
class World:
    """The demo's repository at a git server, and what a story on it may reach."""

    root: Path
    server: GitServer
    base: str
    made: GitSandbox | None = None

    @property
    def url(self) -> str:
        return f"http://forge.example:{self.server.port}/demo.git"

    @property
    def policy(self) -> StepPolicy:
        found = step_policy()
        git_targets = {f"forge.example:{self.server.port}/demo": TARGET}
        targets = found.policy.targets.model_copy(update={"git": git_targets})
        return replace(found, policy=replace(found.policy, targets=targets))

    def branches(self) -> dict[str, str]:
        """Branch -> commit at the server."""
        hosted = self.server.root / "demo.git"
        lines = git(hosted, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads").splitlines()
        return dict(line.split(" ") for line in lines)

    async def sandbox(self, state: Path, blobs: BlobStore) -> ToolSupervisor:
        """Of the team; may reach the server."""
        self.made = await git_sandbox(state, blobs)
        return self.made.supervisor

    @asynccontextmanager
    async def started(self, url: str | None = None) -> AsyncIterator[tuple[Team, StoryId]]:
        """A team at work on the story."""
        async with team(self.root, policy=self.policy, make_sandbox=self.sandbox) as found:
            story_id = await found.create(demo_story())
            await found.start(story_id, url or self.url, model=RECORDED)
            yield found, story_id


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    source, hosted = demo_repository(tmp_path / "stage"), tmp_path / "hosted"
    hosted.mkdir()
    git(tmp_path, "clone", "-q", "--bare", str(source), str(hosted / "demo.git"))
    git(hosted / "demo.git", "config", "http.receivepack", "true")
    with serving_git(hosted) as server:
        yield World(tmp_path, server, git(source, "rev-parse", "HEAD"))


@pytest.mark.rule("RC-70", "RC-77", "RC-55", "RT-65")
async def test_story_of_a_hosted_repository_ends_with_its_branch_there(world: World) -> None:
    async with world.started() as (found, story_id):
        state = await found.settled(story_id, within_s=280)
        events = await found.desk.events(story_id)
    assert state.closed, state.park
    assert state.base_commit == world.base
    assert world.branches() == {"main": world.base, f"fleet/{story_id}": state.commit}
    (fetch,) = [s for s in state.steps.values() if s.started.op == "fetch"]
    assert (fetch.started.kind, fetch.started.effect, fetch.started.as_role) == ("run", "KEYED", "devops")
    assert "SECRET" not in "".join(str(e.body) for e in events)
    assert not [asked for asked in world.server.asked if "SECRET" in asked]


# Fetch and push over ssh have tests of their own (test_hosted_ssh.py); here is the whole story, as over https above.
@pytest.mark.wide
@pytest.mark.rule("RT-58", "RC-70", "RC-77")
@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here: install openssh-client")
async def test_story_of_a_repository_behind_ssh_ends_with_its_branch_there(world: World) -> None:
    async with serving_ssh(world.server.root) as server:
        place = f"forge.example:{server.port}/demo"
        target = GitTarget(credentials="secret://forge-token", host_keys=(server.host_key,))
        found = step_policy()
        targets = found.policy.targets.model_copy(update={"git": {place: target}})

        async def sandbox(state: Path, blobs: BlobStore) -> ToolSupervisor:
            made = await git_sandbox(state, blobs)
            made.secrets.put("forge-token", server.private_key)
            return made.supervisor

        policy = replace(found, policy=replace(found.policy, targets=targets))
        async with team(world.root, policy=policy, make_sandbox=sandbox) as t:
            story_id = await t.create(demo_story())
            await t.start(story_id, f"ssh://git@{place}.git", model=RECORDED)
            state = await t.settled(story_id, within_s=280)
    assert state.closed, state.park
    assert world.branches() == {"main": world.base, f"fleet/{story_id}": state.commit}
    assert {command.split(" ")[0] for command in server.asked} == {"git-upload-pack", "git-receive-pack"}


@pytest.mark.rule("RC-70")
async def test_story_whose_token_is_refused_is_parked_and_goes_on_once_it_is_right(world: World) -> None:
    world.server.token = "tok-other-SECRET"
    async with world.started() as (found, story_id):
        state: StoryState = await found.settled(story_id)
        assert state.park is not None
        assert "refuses the token" in state.park.detail
        assert "SECRET" not in state.park.detail
        assert state.base_commit is None
        world.server.token = TOKEN
        note = {"note": "The token is right now."}
        await found.desk.require(story_id, parse_command("unpark", note), principal=ADA, key=f"{story_id}/unpark")

        async def is_fetched() -> bool:
            return (await found.desk.state(story_id)).base_commit == world.base

        assert await eventually(is_fetched, within_s=120)


@pytest.mark.rule("RC-70", "RT-58", "GL-15")
async def test_story_is_not_started_on_what_is_not_listed_or_no_address(world: World) -> None:
    async with team(world.root, policy=world.policy, make_sandbox=world.sandbox) as found:
        story_id = await found.create(demo_story())
        for number, url in enumerate((world.url.replace("demo", "other"), "https://forge.example/demo.git")):
            with pytest.raises(PolicyDenied) as caught:
                await found.desk.require(
                    story_id, parse_command("start_story", {"repo": url}), principal=ADA, key=f"start-{number}"
                )
            assert caught.value.details["rule_id"] == "target_not_listed"
        odd = {"repo": "https://me:tok-SECRET@forge.example/demo.git"}
        with pytest.raises(InvalidInput) as refused:
            await found.desk.require(story_id, parse_command("start_story", odd), principal=ADA, key="start-odd")
        assert "SECRET" not in str(refused.value)
        keyless = {"repo": world.url.replace("http://", "ssh://git@")}
        with pytest.raises(InvalidInput, match="no host_keys"):
            await found.desk.require(
                story_id, parse_command("start_story", keyless), principal=ADA, key="start-keyless"
            )
        assert (await found.desk.state(story_id)).start is None
    assert world.server.asked == []
