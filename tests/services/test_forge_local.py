"""What only the forge of local repositories does: layouts, hostile repositories, files and their owners."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.forge.local.dirty import dirty_paths
from fleet.forge.local.forge import LocalForge
from fleet.forge.local.head import GitFile
from fleet.forge.port import Commit, FetchedRepository
from fleet.kernel.errors import InvalidInput, StoreUnavailable, VersionConflict
from fleet.trees.memory import MemoryBlobStore
from tests.support.inside import write_files
from tests.support.repositories import FILES, add_hostile_settings, commit_all, git, make_repository, packed_commit


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_repository(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest.fixture
def forge(tmp_path: Path, blobs: MemoryBlobStore) -> LocalForge:
    return LocalForge(tmp_path / "state", blobs)


async def new_commit(source: Path, blobs: MemoryBlobStore) -> Commit:
    made, pack, index = packed_commit(source, {"new.txt": "new\n"})
    base = git(source, "rev-parse", "HEAD")
    return Commit(made, base, await blobs.put(pack), await blobs.put(index))


def listing(root: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes()) for path in files}


@pytest.mark.check("S21")
@pytest.mark.rule("RC-70")
async def test_stage_copies_objects_and_refs_but_no_config_or_hook(
    tmp_path: Path, source: Path, forge: LocalForge
) -> None:
    marker = tmp_path / "marker"
    add_hostile_settings(source, marker)
    before = listing(source)
    staged = await forge.stage(str(source))
    copy = tmp_path / "state" / "repos" / staged.name
    assert {path.name for path in copy.iterdir()} == {"HEAD", "objects", "packed-refs", "refs"}
    assert (copy / "HEAD").read_text().strip() == staged.commit
    assert f"{staged.commit} refs/heads/main" in (copy / "packed-refs").read_text()
    assert git(copy, "--git-dir=.", "ls-tree", "-r", "--name-only", staged.commit).splitlines() == sorted(FILES)
    assert all(path.stat().st_mode & 0o005 for path in copy.rglob("*"))
    assert not marker.exists()
    assert listing(source) == before


async def test_stage_again_reuses_the_copy(tmp_path: Path, source: Path, forge: LocalForge) -> None:
    first = await forge.stage(str(source))
    inode = (tmp_path / "state" / "repos" / first.name).stat().st_ino
    assert await forge.stage(f"file://{source}") == first
    assert (tmp_path / "state" / "repos" / first.name).stat().st_ino == inode
    assert [p.name for p in (tmp_path / "state" / "repos").iterdir()] == [first.name]


async def test_stage_reads_packed_refs_tags_and_packed_objects(source: Path, forge: LocalForge) -> None:
    base = git(source, "rev-parse", "HEAD")
    git(source, "tag", "-a", "v1", "-m", "one")
    git(source, "tag", "light")
    git(source, "update-ref", "refs/remotes/origin/dev", "HEAD")
    assert (await forge.stage(str(source), "v1")).commit == base
    git(source, "gc", "-q")
    assert not (source / ".git/refs/heads/main").exists()
    for ref, branch in (("v1", "v1"), ("light", "light"), ("origin/dev", "origin/dev"), ("refs/heads/main", "main")):
        staged = await forge.stage(str(source), ref)
        assert (staged.commit, staged.branch) == (base, branch)


async def test_stage_of_worktree_bare_clone_and_detached_head(tmp_path: Path, source: Path, forge: LocalForge) -> None:
    base = git(source, "rev-parse", "HEAD")
    git(source, "worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    second = commit_all(tmp_path / "linked", {"side.txt": "s"})
    assert (await forge.stage(str(tmp_path / "linked"))).commit == second
    git(tmp_path, "clone", "-q", "--bare", str(source), "bare.git")
    assert (await forge.stage(str(tmp_path / "bare.git"))).commit == base
    git(source, "checkout", "-q", "--detach")
    assert (await forge.stage(str(source))).branch == "HEAD"


async def test_stage_of_a_shallow_clone_keeps_its_boundary(tmp_path: Path, source: Path, forge: LocalForge) -> None:
    commit_all(source, {"second.txt": "2"})
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{source}", "shallow")
    staged = await forge.stage(str(tmp_path / "shallow"))
    assert (tmp_path / "state" / "repos" / staged.name / "shallow").is_file()


@pytest.mark.check("S23")
async def test_stage_takes_only_regular_files_and_follows_no_link(
    tmp_path: Path, source: Path, forge: LocalForge
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0" * 40)
    (source / ".git/objects/aa").mkdir(exist_ok=True)
    (source / ".git/objects/aa" / ("b" * 38)).symlink_to(secret)
    with pytest.raises(StoreUnavailable):
        await forge.stage(str(source))
    (source / ".git/objects/aa" / ("b" * 38)).unlink()
    os.mkfifo(source / ".git/objects/aa" / ("c" * 38))
    with pytest.raises(InvalidInput, match="no regular file"):
        await forge.stage(str(source))
    assert list((tmp_path / "state" / "repos").iterdir()) == []
    (source / ".git/refs/heads/evil").symlink_to(secret)
    with pytest.raises(InvalidInput, match="no branch"):
        await forge.stage(str(source), "evil")


async def test_stage_copies_objects_that_others_cannot_read(tmp_path: Path, source: Path, forge: LocalForge) -> None:
    for path in (source / ".git/objects").rglob("*"):
        if path.is_file():
            path.chmod(0o400)
    staged = await forge.stage(str(source))
    copies = [p for p in (tmp_path / "state" / "repos" / staged.name / "objects").rglob("*") if p.is_file()]
    assert copies
    assert all(p.stat().st_mode & 0o777 == 0o444 for p in copies)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("extensions.objectFormat", "sha256"), "sha256"),
        (("extensions.refStorage", "reftable"), "reftable"),
        (("extensions.partialClone", "origin"), "partial clone"),
    ],
)
async def test_stage_of_an_unsupported_format_says_what_to_do(
    source: Path, forge: LocalForge, setting: tuple[str, str], message: str
) -> None:
    (source / ".git/config").write_text(f'[core]\n; x\n[Extensions] {setting[0].split(".")[1]} = "{setting[1]}"\n')
    with pytest.raises(InvalidInput, match=message):
        await forge.stage(str(source))


async def test_stage_of_a_clone_that_borrows_objects_is_refused(
    tmp_path: Path, source: Path, forge: LocalForge
) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(source), "shared")
    with pytest.raises(InvalidInput, match="git repack"):
        await forge.stage(str(tmp_path / "shared"))


@pytest.mark.parametrize("url", ["https://example.org/x.git", "", "a\0b", "ssh://host/x"])
async def test_stage_of_a_remote_address_is_refused(forge: LocalForge, url: str) -> None:
    with pytest.raises(InvalidInput, match="not local"):
        await forge.stage(url)


async def test_stage_of_a_plain_folder_or_broken_pointer_is_refused(tmp_path: Path, forge: LocalForge) -> None:
    with pytest.raises(InvalidInput, match="not a git repository"):
        await forge.stage(str(tmp_path))
    (tmp_path / ".git").write_text("nonsense")
    with pytest.raises(InvalidInput, match="does not start"):
        await forge.stage(str(tmp_path))


async def test_stage_of_a_ref_without_its_commit_is_refused(source: Path, forge: LocalForge) -> None:
    (source / ".git/refs/heads/lost").write_text("1" * 40 + "\n")
    with pytest.raises(InvalidInput, match="lacks object"):
        await forge.stage(str(source), "lost")
    tree = git(source, "rev-parse", "HEAD^{tree}")
    (source / ".git/refs/tags/tree").write_text(tree + "\n")
    with pytest.raises(InvalidInput, match="not a commit"):
        await forge.stage(str(source), "tree")
    (source / ".git/refs/heads/loop").write_text("ref: refs/heads/loop\n")
    with pytest.raises(InvalidInput, match="no branch"):
        await forge.stage(str(source), "loop")


async def test_stage_of_a_damaged_object_names_the_mend(source: Path, forge: LocalForge) -> None:
    commit = git(source, "rev-parse", "HEAD")
    loose = source / ".git/objects" / commit[:2] / commit[2:]
    loose.chmod(0o644)
    loose.write_bytes(b"junk")
    with pytest.raises(InvalidInput, match="git fsck"):
        await forge.stage(str(source))


@pytest.mark.rule("RC-70")
async def test_stage_of_a_fetch_is_a_store_of_its_own_and_refuses_a_damaged_one(
    tmp_path: Path, source: Path, forge: LocalForge, blobs: MemoryBlobStore
) -> None:
    made = await new_commit(source, blobs)
    fetched = FetchedRepository(
        "https://h/a", made.commit, "main", made.pack, made.pack_index, {"refs/heads/main": made.commit}
    )
    staged = await forge.stage_fetched(fetched)
    copy = tmp_path / "state" / "repos" / staged.name
    assert {p.name for p in copy.iterdir()} == {"HEAD", "objects", "packed-refs", "refs"}
    assert git(copy, "--git-dir", str(copy), "cat-file", "-t", made.commit) == "commit"
    assert (copy / "packed-refs").read_text().endswith(f"{made.commit} refs/heads/main\n")
    shutil.rmtree(copy)
    assert (await forge.stage_fetched(fetched)).name == staged.name
    assert copy.is_dir()

    for damaged in (replace(fetched, commit="0c" * 20), replace(fetched, pack=await blobs.put(b"PACK" + bytes(40)))):
        with pytest.raises(InvalidInput):
            await forge.stage_fetched(replace(damaged, url="https://h/b"))
    assert [p.name for p in copy.parent.iterdir()] == [staged.name]


@pytest.mark.rule("PL-43")
async def test_publish_adds_pack_and_ref_and_nothing_else(
    tmp_path: Path, source: Path, forge: LocalForge, blobs: MemoryBlobStore
) -> None:
    marker = tmp_path / "marker"
    commit = await new_commit(source, blobs)
    add_hostile_settings(source, marker)
    (source / "README.md").write_text("uncommitted\n")
    before = listing(source)
    await forge.publish(str(source), "fleet/st-1", commit, expected_old=None)
    after = listing(source)
    name = (await blobs.get(commit.pack))[-20:].hex()
    assert {path for path in after if before.get(path) != after[path]} == {
        ".git/refs/heads/fleet/st-1",
        f".git/objects/pack/pack-{name}.pack",
        f".git/objects/pack/pack-{name}.idx",
    }
    assert not marker.exists()
    assert (source / f".git/objects/pack/pack-{name}.pack").stat().st_mode & 0o777 == 0o444
    shutil.rmtree(source / ".git/hooks")
    assert git(source, "-c", "core.fsmonitor=", "fsck", "--full") == ""
    assert git(source, "show", "fleet/st-1:new.txt") == "new"


async def test_publish_gives_new_files_to_the_owner_of_the_repository(
    source: Path, forge: LocalForge, blobs: MemoryBlobStore
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can write into a repository of somebody else")
    commit = await new_commit(source, blobs)
    for path in [source, *source.rglob("*")]:
        os.chown(path, 4242, 4243)
    await forge.publish(str(source), "fleet/st-1", commit, expected_old=None)
    assert {(p.lstat().st_uid, p.lstat().st_gid) for p in source.rglob("*")} == {(4242, 4243)}


async def test_publish_checks_the_old_value_in_packed_refs_too(
    source: Path, forge: LocalForge, blobs: MemoryBlobStore
) -> None:
    commit = await new_commit(source, blobs)
    git(source, "branch", "fleet/st-1")
    git(source, "pack-refs", "--all")
    with pytest.raises(VersionConflict):
        await forge.publish(str(source), "fleet/st-1", commit, expected_old=None)
    assert not (source / ".git/refs/heads/fleet/st-1.lock").exists()
    assert not list((source / ".git/objects/pack").iterdir())
    await forge.publish(str(source), "fleet/st-1", commit, expected_old=commit.base_commit)
    assert git(source, "rev-parse", "fleet/st-1") == commit.commit


async def test_publish_while_git_holds_the_lock_waits_for_another_try(
    source: Path, forge: LocalForge, blobs: MemoryBlobStore
) -> None:
    commit = await new_commit(source, blobs)
    write_files(source, {".git/refs/heads/fleet/st-1.lock": ""})
    with pytest.raises(StoreUnavailable, match=r"st-1\.lock"):
        await forge.publish(str(source), "fleet/st-1", commit, expected_old=None)
    (source / ".git/refs/heads/fleet/st-1.lock").unlink()
    await forge.publish(str(source), "fleet/st-1", commit, expected_old=None)


async def test_publish_over_empty_folders_of_a_deleted_branch_works(
    source: Path, forge: LocalForge, blobs: MemoryBlobStore
) -> None:
    commit = await new_commit(source, blobs)
    (source / ".git/refs/heads/fleet/st-1/deep").mkdir(parents=True)
    await forge.publish(str(source), "fleet/st-1", commit, expected_old=None)
    assert git(source, "rev-parse", "fleet/st-1") == commit.commit


async def test_publish_through_a_link_in_the_repository_is_refused(
    tmp_path: Path, source: Path, forge: LocalForge, blobs: MemoryBlobStore
) -> None:
    commit = await new_commit(source, blobs)
    outside = tmp_path / "outside"
    outside.mkdir()
    (source / ".git/refs/heads/fleet").symlink_to(outside)
    with pytest.raises(StoreUnavailable):
        await forge.publish(str(source), "fleet/st-1", commit, expected_old=None)
    assert list(outside.iterdir()) == []


async def test_publish_of_a_branch_checked_out_in_a_worktree_is_refused(
    tmp_path: Path, source: Path, forge: LocalForge, blobs: MemoryBlobStore
) -> None:
    commit = await new_commit(source, blobs)
    git(source, "worktree", "add", "-q", "-b", "fleet/st-1", str(tmp_path / "linked"))
    with pytest.raises(InvalidInput, match="checked out"):
        await forge.publish(str(source), "fleet/st-1", commit, expected_old=commit.base_commit)


@pytest.mark.parametrize("damage", ["pack", "index", "commit", "other"])
async def test_publish_of_a_damaged_pack_is_refused(
    source: Path, forge: LocalForge, blobs: MemoryBlobStore, damage: str
) -> None:
    commit = await new_commit(source, blobs)
    pack, index = await blobs.get(commit.pack), await blobs.get(commit.pack_index)
    wrong = {
        "pack": Commit(commit.commit, commit.base_commit, await blobs.put(pack[:-1] + b"x"), commit.pack_index),
        "index": Commit(commit.commit, commit.base_commit, commit.pack, await blobs.put(index[:-1] + b"x")),
        "commit": Commit("d" * 40, commit.base_commit, commit.pack, commit.pack_index),
        "other": Commit(commit.commit, commit.base_commit, await blobs.put(b"PACK"), commit.pack_index),
    }
    with pytest.raises(InvalidInput):
        await forge.publish(str(source), "fleet/st-1", wrong[damage], expected_old=None)
    assert not list((source / ".git/objects/pack").iterdir())


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def test_dirty_paths_names_what_is_not_in_the_tree(tmp_path: Path) -> None:
    files = {"a.txt": "a\n", "b.txt": "b\n", "win.txt": "w\n", "run.sh": "r\n", "build/kept.txt": "k\n", "gone.txt": ""}
    tree = {path: GitFile("100644", git_id(text.encode())) for path, text in files.items()}
    tree |= {"link": GitFile("120000", git_id(b"a.txt")), "sub": GitFile("160000", git_id(b"x"))}
    root = write_files(tmp_path, files | {"b.txt": "changed\n", ".gitignore": "*.log\n/build/\n# x\n!y\ndocs/*.tmp\n"})
    tree[".gitignore"] = GitFile("100644", git_id((root / ".gitignore").read_bytes()))
    (root / "win.txt").write_bytes(b"w\r\n")
    (root / "run.sh").chmod(0o755)
    (root / "gone.txt").unlink()
    (root / "link").symlink_to("b.txt")
    write_files(root, {"new.py": "", "x.log": "", "build/x": "", "sub/inner": "", ".git/HEAD": "", "docs/a.tmp": ""})
    write_files(root, {"node_modules/m.js": "", "x.pyc": ""})
    found = dirty_paths(root, tree)
    assert found.modified == ("b.txt", "link", "run.sh")
    assert found.removed == ("gone.txt",)
    assert found.untracked == ("new.py", "build/x")
    assert found.warnings(show=2) == (
        "3 changed files not part of the run: b.txt, link and 1 more",
        "1 deleted file not part of the run: gone.txt",
        "2 untracked files not part of the run: new.py, build/x",
    )


def test_dirty_paths_of_a_clean_tree_and_at_its_limit(tmp_path: Path) -> None:
    root = write_files(tmp_path, {"a": "1", "b": "2", "c": "3"})
    tree = {path: GitFile("100644", git_id((root / path).read_bytes())) for path in "abc"}
    assert dirty_paths(root, tree).warnings() == ()
    assert dirty_paths(root, tree, limit=2).is_complete is False
