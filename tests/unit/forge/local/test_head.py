"""What a run starts from, and what of the folder it will not see: read as git wrote it, without git (S22)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.forge.local.head import look_at_head
from fleet.kernel.errors import InvalidInput

PLAIN = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(repo: Path, *arguments: str) -> str:
    asked = ["git", "-C", str(repo), *arguments]
    return subprocess.run(asked, check=True, capture_output=True, text=True, env=PLAIN).stdout.strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "README.md").write_text("one\n")
    (folder / "src" / "deep" / "a.py").write_text("A = 1\n" * 500)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "Begin")
    return folder


def commit(repo: Path, text: str) -> None:
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", text)


def listed(repo: Path) -> dict[str, tuple[str, str]]:
    rows = [line.split(maxsplit=3) for line in git(repo, "ls-tree", "-r", "HEAD").splitlines()]
    return {path: (mode, name) for mode, _, name, path in rows}


@pytest.mark.parametrize("packed", [False, True], ids=["loose", "packed"])
def test_commit_is_read_as_git_lists_it(repo: Path, packed: bool):
    # Versions of one long list of files, so that a pack holds trees and files as differences to others.
    for n in range(30):
        for name in range(40):
            (repo / "src" / f"file_{name:02}.py").write_text(f"X = {n if name == n else 0}\n" * 200)
        commit(repo, f"Change {n}")
    if packed:
        git(repo, "repack", "-a", "-d", "-f", "-q", "--depth=50")
        git(repo, "prune-packed", "-q")
        assert "delta" in git(repo, "cat-file", "--batch-all-objects", "--batch-check=%(deltabase) delta")
        assert any(
            not line.startswith("0000")
            for line in git(repo, "cat-file", "--batch-all-objects", "--batch-check=%(deltabase)").splitlines()
        )
    found = look_at_head(str(repo))
    assert {path: tuple(file) for path, file in found.files.items()} == listed(repo)
    assert (found.commit, found.branch, found.warnings) == (git(repo, "rev-parse", "HEAD"), "main", ())


def test_changes_that_are_not_committed_are_named_staged_ones_too(repo: Path):
    (repo / "README.md").write_text("two\n")
    (repo / "new.py").write_text("N = 1\n")
    git(repo, "add", "README.md")
    assert look_at_head(str(repo)).warnings == (
        "1 changed file not part of the run: README.md",
        "1 untracked file not part of the run: new.py",
        f"the run starts from commit {git(repo, 'rev-parse', 'HEAD')[:12]} of main: commit first what it shall see",
    )


def test_submodules_large_files_and_a_merge_under_way_are_named_with_what_to_do(repo: Path):
    (repo / "assets").mkdir()
    (repo / "assets" / "a.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (repo / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n*.txt text\n")
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},vendor/lib")
    commit(repo, "Large")
    git(repo, "update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},vendor/lib")
    git(repo, "commit", "-q", "--amend", "-m", "Large")
    (repo / "assets" / "a.bin").write_bytes(b"what the filter made of it")
    (repo / ".git" / "MERGE_HEAD").write_text("")
    assert look_at_head(str(repo)).warnings == (
        "1 submodule is not part of the run (vendor/lib): tests that need them fail; commit their files into the "
        "repository, or leave those tests out",
        "1 file is kept by Git LFS (assets/a.bin): the run sees their pointers alone; tests that read them need "
        "`git lfs migrate export`, or are left out",
        "a merge is under way: finish it first, or only what is committed is part of the run",
    )


def test_folder_below_a_repository_names_the_one_above(repo: Path):
    with pytest.raises(InvalidInput, match=f"is not a git repository: name its top folder {repo}$"):
        look_at_head(str(repo / "src"))


def test_repository_without_a_commit_says_how_to_make_one(tmp_path: Path):
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "a.py").write_text("")
    with pytest.raises(InvalidInput, match="has no commit yet: run `git add -A` and `git commit -m Begin`"):
        look_at_head(str(tmp_path))
