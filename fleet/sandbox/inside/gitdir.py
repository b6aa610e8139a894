"""A throw-away git directory of our own over the objects of a staged repository (RC-70, S21-S23).

Configuration, attributes and hooks of the repository never take part: the staged copy has none, the temporary
directory's are ours, and no filter or conversion is applied to contents.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

COMMIT_ID = re.compile(r"[0-9a-f]{40}")
_ATTRIBUTES = "* -text -eol -filter -ident -working-tree-encoding -export-ignore -export-subst -diff -merge\n"


class GitFailed(Exception):
    """git said no; the message holds its own words."""


class Row(NamedTuple):
    """One entry of a tree: mode (git's six digits), object id."""

    mode: str
    object_id: str


class GitDir:
    """Runs git plumbing with nothing but our own settings."""

    def __init__(self, path: Path, worktree: Path) -> None:
        self.path = path
        self._environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(path),
            "LC_ALL": "C",
            "GIT_DIR": str(path),
            "GIT_WORK_TREE": str(worktree),
            "GIT_INDEX_FILE": str(path / "index"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }

    def run(self, *argv: str, stdin: bytes = b"", environment: dict[str, str] | None = None) -> bytes:
        """Standard output of one git command; GitFailed with its standard error otherwise."""
        done = subprocess.run(
            ["git", *argv],
            input=stdin,
            capture_output=True,
            env=self._environment | (environment or {}),
            cwd=self._environment["GIT_WORK_TREE"],
            check=False,
        )
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()[-500:]
            name = next(part for part in argv if part != "-c" and "=" not in part)
            raise GitFailed(f"git {name} ended with {done.returncode}: {words}")
        return done.stdout

    def commit_of(self, name: str) -> str:
        """The commit behind a full id of a commit or annotated tag."""
        if not COMMIT_ID.fullmatch(name):
            raise GitFailed(f"{name[:60]!r} is no full commit id")
        return self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode().strip()

    def rows(self, commit: str) -> dict[str, Row]:
        """Path -> entry of everything in the commit's tree."""
        rows: dict[str, Row] = {}
        for line in self.run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0"):
            if line:
                facts, path = line.split(b"\t", 1)
                mode, _kind, object_id = facts.decode().split(" ")
                rows[os.fsdecode(path)] = Row(mode, object_id)
        return rows

    def write_blob(self, data: bytes) -> str:
        """The id of the bytes, which are stored as they are."""
        object_id = blob_id(data)
        target = self.path / "objects" / object_id[:2] / object_id[2:]
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(zlib.compress(b"blob %d\0" % len(data) + data))
        return object_id


def blob_id(data: bytes) -> str:
    """git's id of a file's bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def temporary_git_dir(repo: Path | None, worktree: Path, packs: Sequence[Path] = ()) -> Generator[GitDir]:
    """A git directory whose objects are those of `repo` (borrowed) and of the packs (copied); gone afterwards.

    It is made where temporary files are (`tempfile.tempdir`).
    """
    path = Path(tempfile.mkdtemp(prefix="git-"))
    try:
        for folder in ("refs/heads", "objects/info", "objects/pack", "info"):
            (path / folder).mkdir(parents=True)
        (path / "HEAD").write_text("ref: refs/heads/none\n")
        (path / "config").write_text(
            "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tautocrlf = false\n\tfsmonitor = false\n"
            "\thooksPath = /dev/null\n\tattributesFile = /dev/null\n\tprotectHFS = true\n\tprotectNTFS = true\n"
        )
        (path / "info" / "attributes").write_text(_ATTRIBUTES)
        if repo is not None:
            (path / "objects" / "info" / "alternates").write_text(f"{repo / 'objects'}\n")
        if repo is not None and (repo / "shallow").is_file():
            shutil.copyfile(repo / "shallow", path / "shallow")
        git = GitDir(path, worktree)
        for number, pack in enumerate(packs):
            copy = path / "objects" / "pack" / f"pack-{number}.pack"
            shutil.copyfile(pack, copy)
            git.run("index-pack", str(copy))
        yield git
    finally:
        shutil.rmtree(path, ignore_errors=True)
