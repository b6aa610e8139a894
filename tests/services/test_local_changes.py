"""What only change requests in files do: their files, damage, links, locks, and a crash in the middle."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.forge.local.change_requests import LocalChangeRequests
from fleet.forge.local.records import file_errors, opened_records
from fleet.forge.port import ChangeOutcome, ChangeRequest, CommitState, EndedChange, OpenedChange
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, LogCorrupted, NotFound, StoreFull, StoreUnavailable
from tests.support.repositories import git, make_repository

PATCH = b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"


@dataclass
class Place:
    """A bare repository and the change requests beside it."""

    changes: LocalChangeRequests
    repository: Path
    commit: str
    root: Path

    @property
    def folder(self) -> Path:
        return self.changes.folder(str(self.repository))

    def change(self, *, head: str = "fleet/st-1", title: str = "t", patch: bytes = PATCH) -> ChangeRequest:
        return ChangeRequest(str(self.repository), "main", head, title, "b", verdict="accepted", patch=patch)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    make_repository(tmp_path / "source")
    repository = tmp_path / "My App!.git"
    git(tmp_path, "clone", "-q", "--bare", str(tmp_path / "source"), str(repository))
    commit = git(repository, "rev-parse", "main")
    git(repository, "branch", "fleet/st-1", "main")
    root = tmp_path / "changes"
    return Place(LocalChangeRequests(root), repository, commit, root)


@pytest.mark.rule("RC-105")
async def test_open_writes_a_patch_and_a_record_beside_it(place: Place) -> None:
    before = _tree(place.repository)

    answer = await place.changes.open_or_update(place.change())

    assert isinstance(answer, OpenedChange)
    assert place.folder.name.startswith("My-App-")
    assert sorted(p.name for p in place.folder.iterdir()) == [".lock", "fleet%2Fst-1.json", "fleet%2Fst-1.patch"]
    assert (place.folder / "fleet%2Fst-1.patch").read_bytes() == PATCH
    record = json.loads((place.folder / "fleet%2Fst-1.json").read_text())
    assert answer.link == (place.folder / "fleet%2Fst-1.json").as_uri()
    assert (record["state"], record["commit"], record["patch_digest"]) == ("open", place.commit, str(digest_of(PATCH)))
    assert _tree(place.repository) == before


def _tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


async def test_open_without_a_patch_keeps_the_one_that_is_there(place: Place) -> None:
    await place.changes.open_or_update(place.change())

    answer = await place.changes.open_or_update(place.change(patch=b""))

    assert isinstance(answer, OpenedChange)
    assert answer.outcome is ChangeOutcome.UNCHANGED
    assert (place.folder / "fleet%2Fst-1.patch").read_bytes() == PATCH


async def test_open_when_the_branch_moved_notes_the_new_commit(place: Place) -> None:
    await place.changes.open_or_update(place.change())
    moved = git(place.repository, "commit-tree", "main^{tree}", "-p", "main", "-m", "more")
    git(place.repository, "update-ref", "refs/heads/fleet/st-1", moved)

    answer = await place.changes.open_or_update(place.change())

    assert isinstance(answer, OpenedChange)
    assert answer.outcome is ChangeOutcome.UPDATED
    assert json.loads((place.folder / "fleet%2Fst-1.json").read_text())["commit"] == moved


@pytest.mark.rule("RC-51")
async def test_crash_between_patch_and_record_is_mended_by_repeating(place: Place) -> None:
    place.folder.mkdir(parents=True)
    (place.folder / "fleet%2Fst-1.patch").write_bytes(PATCH[:5])

    answer = await place.changes.open_or_update(place.change())

    assert isinstance(answer, OpenedChange)
    assert answer.outcome is ChangeOutcome.OPENED
    assert (place.folder / "fleet%2Fst-1.patch").read_bytes() == PATCH


async def test_patch_that_was_removed_comes_back(place: Place) -> None:
    await place.changes.open_or_update(place.change())
    (place.folder / "fleet%2Fst-1.patch").unlink()

    await place.changes.open_or_update(place.change())

    assert (place.folder / "fleet%2Fst-1.patch").read_bytes() == PATCH


async def test_long_branch_names_that_begin_alike_are_two_changes(place: Place) -> None:
    heads = [f"fleet/{'ü' * 80}-{n}" for n in (1, 2)]
    for head in heads:
        git(place.repository, "branch", head, "main")

    answers = [await place.changes.open_or_update(place.change(head=head)) for head in heads]

    assert [answer.number for answer in answers] == [1, 2]
    assert len(list(place.folder.glob("*.json"))) == 2
    assert max(len(p.name) for p in place.folder.iterdir()) < 255


async def test_state_that_a_person_set_is_respected(place: Place) -> None:
    await place.changes.open_or_update(place.change())
    path = place.folder / "fleet%2Fst-1.json"
    path.write_text(path.read_text().replace('"state": "open"', '"state": "closed"'))

    answer = await place.changes.open_or_update(place.change(title="other"))

    assert answer == EndedChange(1, path.as_uri(), is_merged=False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', "[" * 9999, '{"number": "1"}'])
async def test_damaged_record_is_named_and_not_overwritten(place: Place, text: str) -> None:
    await place.changes.open_or_update(place.change())
    path = place.folder / "fleet%2Fst-1.json"
    path.write_text(text)

    with pytest.raises(LogCorrupted, match="fleet%2Fst-1.json"):
        await place.changes.open_or_update(place.change())
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["fleet%2Fst-1.patch", "fleet%2Fst-1.json"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
async def test_link_or_pipe_in_the_place_of_a_file_is_replaced_not_followed(
    place: Place, name: str, kind: str, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("{}")
    place.folder.mkdir(parents=True)
    if kind == "link":
        (place.folder / name).symlink_to(victim)
    else:
        os.mkfifo(place.folder / name)

    await place.changes.open_or_update(place.change())

    assert victim.read_text() == "{}"
    assert (place.folder / name).is_file()
    assert not (place.folder / name).is_symlink()


async def test_folder_that_is_a_link_is_refused(place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place.root.mkdir()
    place.folder.symlink_to(elsewhere)

    with pytest.raises(StoreUnavailable):
        await place.changes.open_or_update(place.change())
    assert list(elsewhere.iterdir()) == []


async def test_root_that_cannot_be_a_folder_is_an_outage(place: Place) -> None:
    place.root.write_text("a file")
    with pytest.raises(StoreUnavailable, match="cannot be read or written"):
        await place.changes.open_or_update(place.change())
    with pytest.raises(StoreUnavailable):
        await place.changes.set_status(str(place.repository), place.commit, state=CommitState.SUCCESS, description="ok")


async def test_folder_without_repository_or_branch_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        await place.changes.set_status(
            str(tmp_path / "gone"), place.commit, state=CommitState.SUCCESS, description="ok"
        )
    with pytest.raises(NotFound, match="publish it first"):
        await place.changes.open_or_update(place.change(head="fleet/other"))


async def test_status_stands_in_a_file_of_its_commit(place: Place) -> None:
    await place.changes.set_status(str(place.repository), place.commit, state=CommitState.ERROR, description="broke")

    record = json.loads((place.folder / "statuses" / f"{place.commit}.json").read_text())
    assert record == {
        "format": 1,
        "name": "fleet/verdict",
        "commit": place.commit,
        "state": "error",
        "description": "broke",
        "link": "",
    }


def test_folder_of_a_worktree_is_named_after_it(place: Place, tmp_path: Path) -> None:
    assert place.changes.folder(str(tmp_path / "source")).name.startswith("source-")
    assert place.changes.folder(f"file://{tmp_path}/source") == place.changes.folder(str(tmp_path / "source"))


@contextmanager
def held(path: Path) -> Generator[None]:
    """Another process is inside."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_lock_that_is_never_released_is_an_outage(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(StoreUnavailable, match="locked"), opened_records(tmp_path, wait_s=0.05):
        pytest.fail("two are inside")
    with opened_records(tmp_path) as records:
        assert records.names() == []


def test_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with opened_records(tmp_path) as records, pytest.raises(OSError, match="a.json"):
        records.write("a.json", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "a.json"]


def test_full_disk_is_told_from_an_outage() -> None:
    with pytest.raises(StoreFull), file_errors("x"):
        raise OSError(errno.ENOSPC, "no space")
    with pytest.raises(StoreUnavailable), file_errors("x"):
        raise OSError(errno.EIO, "broken")
