"""A repository in an empty folder is one that git itself finds whole (PL-54)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fleet.forge.local.begin import begin_repository, is_unused
from fleet.forge.local.forge import check_repository
from fleet.kernel.errors import InvalidInput

AT = 1_767_323_045


def git(repo: Path, *arguments: str) -> str:
    plain = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(
        ["git", "-C", str(repo), *arguments], check=True, capture_output=True, text=True, env=plain
    ).stdout.strip()


@pytest.mark.rule("PL-54")
def test_empty_folder_becomes_a_repository_with_one_commit_and_no_file(tmp_path: Path):
    begin_repository(tmp_path, at_s=AT)
    git(tmp_path, "fsck", "--strict")
    commit, branch = check_repository(str(tmp_path))
    assert (branch, git(tmp_path, "rev-parse", "HEAD")) == ("main", commit)
    assert git(tmp_path, "ls-tree", "HEAD") == ""
    assert git(tmp_path, "status", "--porcelain") == ""
    assert git(tmp_path, "log", "--format=%s %ct") == f"Begin {AT}"


def test_repository_that_is_there_stays_as_it_is(tmp_path: Path):
    begin_repository(tmp_path, at_s=AT)
    before = git(tmp_path, "rev-parse", "HEAD")
    begin_repository(tmp_path, at_s=AT + 1)
    assert git(tmp_path, "rev-parse", "HEAD") == before


def test_repository_without_commit_and_file_gets_its_first_on_its_own_branch(tmp_path: Path):
    git(tmp_path, "init", "-q", "-b", "trunk")
    begin_repository(tmp_path, at_s=AT)
    commit, branch = check_repository(str(tmp_path))
    assert (branch, git(tmp_path, "rev-parse", "HEAD")) == ("trunk", commit)
    git(tmp_path, "fsck", "--strict")


def test_half_made_repository_is_begun_again(tmp_path: Path):
    begin_repository(tmp_path, at_s=AT)
    (tmp_path / ".git" / "HEAD").unlink()
    begin_repository(tmp_path, at_s=AT)
    git(tmp_path, "fsck", "--strict")


def test_folder_is_unused_until_it_holds_a_file(tmp_path: Path):
    assert is_unused(tmp_path / "none")
    assert is_unused(tmp_path)
    begin_repository(tmp_path, at_s=AT)
    assert is_unused(tmp_path)
    (tmp_path / "README.md").write_text("text")
    assert not is_unused(tmp_path)
    with pytest.raises(InvalidInput, match="is no directory"):
        is_unused(tmp_path / "README.md")


def test_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / ".git").write_text("not a folder")
    with pytest.raises(InvalidInput, match="no repository can be begun"):
        begin_repository(tmp_path, at_s=AT)
