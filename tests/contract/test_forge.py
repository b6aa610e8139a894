"""The suite of the port Forge, on the twin in memory and on real repositories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fleet.forge.local.forge import LocalForge
from fleet.forge.memory import MemoryForge
from fleet.forge.port import Commit, FetchedRepository, Forge
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound, InvalidInput, VersionConflict
from fleet.kernel.ids import Digest
from fleet.trees.memory import MemoryBlobStore
from tests.support.repositories import git, make_repository, packed_commit


@dataclass
class World:
    """A forge, a repository with one commit on `main`, one without any, and a commit to publish."""

    forge: Forge
    url: str
    empty_url: str
    base: str
    branches: Callable[[], dict[str, str]]
    add_branch: Callable[[str], None]
    commit: Commit


@pytest.fixture(params=["memory", "local"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    blobs = MemoryBlobStore()
    source, empty = tmp_path / "source", tmp_path / "empty"
    base = make_repository(source)
    empty.mkdir()
    git(empty, "init", "-q")
    made, pack, index = packed_commit(source, {"new.txt": "new\n"})
    commit = Commit(commit=made, base_commit=base, pack=await blobs.put(pack), pack_index=await blobs.put(index))
    if request.param == "local":
        return World(
            LocalForge(tmp_path / "state", blobs),
            str(source),
            str(empty),
            base,
            lambda: dict(line.split()[::-1] for line in _heads(source)),  # type: ignore[misc]
            lambda name: void(git(source, "branch", name)),
            commit,
        )
    forge = MemoryForge(blobs)
    forge.add_repository("mem:source", branches={"main": base})
    forge.add_repository("mem:empty")

    def add(name: str) -> None:
        forge.add_repository("mem:source", branches={**forge.branches("mem:source"), name: base})

    return World(forge, "mem:source", "mem:empty", base, lambda: forge.branches("mem:source"), add, commit)


def void(_: object) -> None:
    """Nothing."""


def _heads(path: Path) -> list[str]:
    return git(path, "for-each-ref", "--format=%(objectname) %(refname:short)", "refs/heads").splitlines()


@pytest.mark.rule("RC-70")
async def test_stage_pins_the_current_branch(world: World) -> None:
    staged = await world.forge.stage(world.url)
    assert (staged.commit, staged.branch) == (world.base, "main")
    assert len(staged.name) == 64
    assert await world.forge.stage(world.url, "main") == staged


async def test_stage_by_commit_id_keeps_the_name_of_the_copy(world: World) -> None:
    by_id = await world.forge.stage(world.url, world.base)
    assert by_id.name == (await world.forge.stage(world.url)).name
    assert by_id.commit == world.base


@pytest.mark.parametrize("ref", ["nothing", "../main", "0" * 40, "refs/heads/../main", "ma in"])
async def test_stage_of_an_unknown_ref_is_refused(world: World, ref: str) -> None:
    with pytest.raises(InvalidInput, match="no branch"):
        await world.forge.stage(world.url, ref)


async def test_stage_without_repository_or_commit_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        await world.forge.stage(world.url + "-missing")
    with pytest.raises(InvalidInput, match="no commit yet"):
        await world.forge.stage(world.empty_url)


@pytest.mark.rule("PL-43", "RC-77")
async def test_publish_creates_the_branch_and_touches_no_other(world: World) -> None:
    await world.forge.publish(world.url, "fleet/st-1", world.commit, expected_old=None)
    assert world.branches() == {"main": world.base, "fleet/st-1": world.commit.commit}


@pytest.mark.rule("RC-51")
async def test_publish_again_changes_nothing(world: World) -> None:
    for _ in range(2):
        await world.forge.publish(world.url, "fleet/st-1", world.commit, expected_old=None)
    await world.forge.publish(world.url, "fleet/st-1", world.commit, expected_old="f" * 40)
    assert world.branches()["fleet/st-1"] == world.commit.commit


@pytest.mark.rule("PL-43")
async def test_publish_onto_a_moved_branch_is_a_conflict(world: World) -> None:
    world.add_branch("fleet/st-1")
    with pytest.raises(VersionConflict) as caught:
        await world.forge.publish(world.url, "fleet/st-1", world.commit, expected_old=None)
    assert caught.value.details["actual"] == world.base
    assert world.branches()["fleet/st-1"] == world.base
    await world.forge.publish(world.url, "fleet/st-1", world.commit, expected_old=world.base)
    assert world.branches()["fleet/st-1"] == world.commit.commit


async def test_publish_to_a_branch_that_vanished_is_a_conflict(world: World) -> None:
    with pytest.raises(VersionConflict):
        await world.forge.publish(world.url, "fleet/st-1", world.commit, expected_old=world.base)
    assert set(world.branches()) == {"main"}


@pytest.mark.parametrize(("present", "branch"), [("fleet", "fleet/st-1"), ("fleet/st-1/x", "fleet/st-1")])
async def test_publish_beside_a_clashing_name_is_refused(world: World, present: str, branch: str) -> None:
    world.add_branch(present)
    with pytest.raises(InvalidInput, match="cannot exist beside"):
        await world.forge.publish(world.url, branch, world.commit, expected_old=None)


@pytest.mark.parametrize("branch", ["", "../x", "/x", "main"])
async def test_publish_to_a_bad_or_checked_out_branch_is_refused(world: World, branch: str) -> None:
    with pytest.raises(InvalidInput):
        await world.forge.publish(world.url, branch, world.commit, expected_old=None)
    assert world.branches() == {"main": world.base}


async def test_publish_without_repository_base_or_pack_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput):
        await world.forge.publish(world.url + "-missing", "b", world.commit, expected_old=None)
    other = Commit(world.commit.commit, "e" * 40, world.commit.pack, world.commit.pack_index)
    with pytest.raises(InvalidInput, match="hold"):
        await world.forge.publish(world.url, "b", other, expected_old=None)
    lost: Digest = digest_of(b"never stored")
    with pytest.raises(ArtifactNotFound):
        await world.forge.publish(world.url, "b", Commit("a" * 40, world.base, lost, lost), expected_old=None)


@pytest.mark.rule("RC-70")
async def test_stage_of_what_was_fetched_is_one_copy_per_address_and_commit(world: World) -> None:
    made = world.commit
    fetched = FetchedRepository(
        "https://git.example/a", made.commit, "main", made.pack, made.pack_index, {"refs/heads/main": made.commit}
    )
    staged = await world.forge.stage_fetched(fetched)
    assert (staged.commit, staged.branch, len(staged.name)) == (made.commit, "main", 64)
    assert await world.forge.stage_fetched(fetched) == staged
    other = await world.forge.stage_fetched(replace(fetched, url="https://git.example/b"))
    assert other.name != staged.name


async def test_stage_of_a_fetch_whose_pack_is_gone_is_an_error(world: World) -> None:
    gone = digest_of(b"nobody stored this")
    with pytest.raises(ArtifactNotFound):
        await world.forge.stage_fetched(FetchedRepository("https://git.example/a", world.base, "main", gone, gone))
