"""Real git repositories for tests, hostile ones too. Only tests run git on a host; the product never does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.inside import write_files

FILES = {
    "README.md": "# demo\n",
    "demo/__init__.py": "",
    "demo/core.py": "def one() -> int:\n    return 1\n",
    "tests/test_core.py": "from demo.core import one\n\n\ndef test_one():\n    assert one() == 1\n",
}


def git(repo: Path, *argv: str, stdin: bytes = b"") -> str:
    """Standard output of a git command in the repository, with a fixed identity and date."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repo),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_DATE": "1700000000 +0000",
        "GIT_COMMITTER_DATE": "1700000000 +0000",
    }
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *argv], cwd=repo, env=environment, input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def make_repository(path: Path, files: dict[str, str] | None = None) -> str:
    """A repository with one commit on `main`; the commit's id."""
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "-q")
    return commit_all(path, FILES if files is None else files)


def commit_all(path: Path, files: dict[str, str], message: str = "work") -> str:
    """The files added and committed; the commit's id."""
    write_files(path, files)
    git(path, "add", "-A", "-f")
    git(path, "commit", "-q", "-m", message)
    return git(path, "rev-parse", "HEAD")


def add_hostile_settings(path: Path, marker: Path) -> None:
    """Filters, hooks, fsmonitor and an alias that each make the marker file when somebody lets git use them."""
    touch = f"touch {marker}"
    for key in ("filter.evil.smudge", "filter.evil.clean", "core.fsmonitor", "core.sshCommand", "alias.log"):
        git(path, "config", key, f"!{touch}" if key.startswith("alias") else f"sh -c '{touch}; cat'")
    for hook in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        script = path / ".git" / "hooks" / hook
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{touch}\n")
        script.chmod(0o755)


def packed_commit(source: Path, files: dict[str, str]) -> tuple[str, bytes, bytes]:
    """A commit on HEAD that the repository itself does not have: its id, its pack, and the pack's index."""
    clone = source.parent / f"{source.name}-clone"
    git(source.parent, "clone", "-q", str(source), str(clone))
    base = git(clone, "rev-parse", "HEAD")
    commit = commit_all(clone, files)
    name = git(clone, "pack-objects", "--revs", "-q", "made", stdin=f"{commit}\n^{base}\n".encode())
    pack, index = (clone / f"made-{name}.{ending}" for ending in ("pack", "idx"))
    return commit, pack.read_bytes(), index.read_bytes()
