"""A repository behind SSH is listed, fetched and pushed to from the sandbox, through the egress proxy (RT-58)."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.forge.local.forge import LocalForge
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.commands.git import GitAddress, GitTarget, parse_git_address
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.trees.memory import MemoryBlobStore
from fleet.workspace.service.repository_specs import FETCHED, fetch_spec, fetched_of, push_spec
from tests.support.git_ssh import SshGitServer, serving_ssh
from tests.support.hosted_git import GitSandbox, git_sandbox
from tests.support.repositories import commit_all, git, make_repository
from tests.support.sandbox import state_folder

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here: install openssh-client"),
]

STORY = StoryId("st-1")


@dataclass
class World:
    """A repository behind SSH, and a sandbox that may reach it."""

    server: SshGitServer
    sandbox: GitSandbox
    forge: LocalForge
    blobs: MemoryBlobStore
    source: Path
    base: str
    runs: int = 0

    @property
    def address(self) -> GitAddress:
        return parse_git_address(f"ssh://git@forge.example:{self.server.port}/app.git")

    @property
    def target(self) -> GitTarget:
        return GitTarget(credentials="secret://forge-token", host_keys=(self.server.host_key,))

    async def run(self, spec: RunSpec) -> RunResult:
        """One run, under a key of its own; nothing that it leaves may hold the private key."""
        self.runs += 1
        result = await self.sandbox.supervisor.run(spec, story=STORY, key=RunKey(f"{self.runs:064x}"), epoch=1)
        line = self.server.private_key.splitlines()[1]
        assert line not in result.model_dump_json() + spec.model_dump_json()
        return result


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    source = tmp_path / "source"
    base = make_repository(source)
    git(tmp_path, "clone", "-q", "--bare", str(source), str(tmp_path / "hosted" / "app.git"))
    blobs = MemoryBlobStore()
    async with serving_ssh(tmp_path / "hosted") as server:
        with state_folder() as state:
            sandbox = await git_sandbox(state, blobs)
            # Without its last end of line, as a provider of secrets hands it out.
            sandbox.secrets.put("forge-token", server.private_key.strip())
            yield World(server, sandbox, LocalForge(state, blobs), blobs, source, base)


def said(result: RunResult) -> str:
    """What to show when a run did not end as expected."""
    return f"{result.reason} {result.exit_code}: {result.stdout.text} {result.stderr.text}"


@pytest.mark.rule("RT-58", "RC-70", "RT-65")
async def test_repository_behind_ssh_is_fetched_with_the_key_of_its_place_alone(world: World) -> None:
    result = await world.run(fetch_spec(world.address, world.target))
    assert result.exit_code == 0, said(result)
    assert {(d.host, d.port, d.allowed) for d in result.egress} == {("forge.example", world.server.port, True)}
    assert {command.split(" ")[0] for command in world.server.asked} == {"git-upload-pack"}
    assert [(a.name, a.role, a.op) for a in world.sandbox.accesses] == [("forge-token", "devops", "fetch")]

    facts, pack, index = (result.artifact(path) for path in FETCHED)
    assert facts is not None
    assert pack is not None
    assert index is not None
    fetched = fetched_of(world.address, await world.blobs.get(facts), pack=pack, pack_index=index)
    assert fetched is not None
    staged = await world.forge.stage_fetched(fetched)
    assert (staged.commit, staged.branch) == (world.base, "main")


@pytest.mark.rule("RT-58", "RC-77")
async def test_branch_is_pushed_over_ssh_from_the_expected_commit_and_again_changes_nothing(world: World) -> None:
    staged = await world.forge.stage(str(world.source))
    commit = commit_all(world.source, {"made.txt": "new\n"})
    name = git(world.source, "pack-objects", "--revs", "-q", "new", stdin=f"{commit}\n^{world.base}\n".encode())
    pack = await world.blobs.put((world.source / f"new-{name}.pack").read_bytes())

    async def push(expected: str | None) -> RunResult:
        return await world.run(
            push_spec(
                staged.name,
                [pack],
                address=world.address,
                target=world.target,
                branch="fleet/st-1",
                commit=commit,
                expected_old=expected,
            )
        )

    refused = await push("0" * 40)
    assert refused.exit_code == 1, said(refused)
    pushed = await push(None)
    assert (pushed.exit_code, pushed.stdout.text.strip()) == (0, "pushed"), said(pushed)
    assert git(world.server.root / "app.git", "rev-parse", "fleet/st-1") == commit
    again = await push(None)
    assert (again.exit_code, again.stdout.text.strip()) == (0, "present"), said(again)


@pytest.mark.rule("RT-58")
async def test_host_that_is_not_the_one_listed_is_refused_before_it_is_told_anything(world: World) -> None:
    other = GitTarget(credentials="secret://forge-token", host_keys=("ssh-ed25519 " + "A" * 68,))
    async with serving_ssh(world.server.root) as stranger:
        other = other.model_copy(update={"host_keys": (stranger.host_key,)})
        result = await world.run(fetch_spec(world.address, other))
    assert result.exit_code == 1, said(result)
    assert "host key" in result.stdout.text.lower()
    assert world.server.asked == []


@pytest.mark.rule("RT-58", "RT-65")
async def test_key_that_the_host_does_not_know_is_no_permission(world: World, tmp_path: Path) -> None:
    async with serving_ssh(tmp_path) as another:
        world.sandbox.secrets.put("forge-token", another.private_key)
    result = await world.run(fetch_spec(world.address, world.target))
    assert result.exit_code == 77, said(result)
    world.sandbox.secrets.put("forge-token", "no key at all")
    result = await world.run(fetch_spec(world.address, world.target))
    assert result.exit_code == 77, said(result)
    assert world.server.asked == []


@pytest.mark.rule("RC-7", "RT-58")
async def test_unknown_repository_is_refused_for_good_and_an_unknown_host_reached_by_nobody(world: World) -> None:
    missing = parse_git_address(f"{world.address.url.removesuffix('app.git')}missing.git")
    result = await world.run(fetch_spec(missing, world.target))
    assert result.exit_code == 1, said(result)
    elsewhere = parse_git_address(f"ssh://git@elsewhere.example:{world.server.port}/app.git")
    result = await world.run(fetch_spec(elsewhere, world.target))
    assert result.exit_code == 75, said(result)
    assert {d.allowed for d in result.egress} == {False}


@pytest.mark.rule("RT-58")
@pytest.mark.parametrize(
    ("target", "missing"),
    [
        (GitTarget(), ["credentials", "host_keys"]),
        (GitTarget(credentials="secret://key"), ["host_keys"]),
        (GitTarget(host_keys=("ssh-ed25519 " + "A" * 68,)), ["credentials"]),
    ],
)
def test_ssh_address_without_key_or_host_keys_says_what_to_list(target: GitTarget, missing: list[str]) -> None:
    with pytest.raises(InvalidInput, match="ssh-keyscan forge.example") as caught:
        fetch_spec(parse_git_address("git@forge.example:team/app.git"), target)
    assert caught.value.details["missing"] == missing


@pytest.mark.rule("RT-58")
def test_scp_form_names_the_same_repository_as_its_address() -> None:
    target = GitTarget(credentials="secret://key", host_keys=("ssh-ed25519 " + "A" * 68,))
    short = fetch_spec(parse_git_address("git@forge.example:team/app.git"), target)
    assert short == fetch_spec(parse_git_address("ssh://git@forge.example/team/app.git"), target)
    assert short.hosts == ("forge.example:22",)


@pytest.mark.parametrize("key", ["ssh-ed25519", "ssh-ed25519 AAAA\n* ssh-rsa BBBB", "@cert-authority * ssh-rsa AAAA"])
def test_host_key_of_another_form_is_no_target(key: str) -> None:
    with pytest.raises(ValueError, match="host_keys"):
        GitTarget(host_keys=(key,))
