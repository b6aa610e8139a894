"""A repository in an empty folder, written as plain files: git never runs on a host (S21-S23)."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

from fleet.forge.local.layout import find_repository
from fleet.forge.local.refs import read_head
from fleet.kernel.errors import InvalidInput

_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
_BRANCH = "main"
_AUTHOR = "SWE Fleet <fleet@localhost>"


def is_unused(folder: Path) -> bool:
    """Whether the folder is still to be made, is empty, or holds a repository without any file beside it.

    Raises:
        InvalidInput: the path is no folder, or cannot be looked into.
    """
    try:
        return not folder.exists() or all(entry.name == ".git" for entry in folder.iterdir())
    except NotADirectoryError as error:
        raise InvalidInput(f"{folder} is no directory: name a folder with --repo", field="repo") from error
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be read: {error.strerror}", field="repo") from error


def begin_repository(folder: Path, *, at_s: int) -> None:
    """The folder is a git repository with one commit, which holds no file.

    A repository that has a commit stays as it is; one that `git init` made gets its first. `HEAD` is written last, so
    that a half-made one is begun again.

    Args:
        at_s: time of the commit, seconds since the Unix epoch.

    Raises:
        InvalidInput: the folder cannot be written.
    """
    git = folder / ".git"
    try:
        branch = _unborn(folder) if (git / "HEAD").is_file() else _BRANCH
        if branch is None:
            return
        for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
            (git / name).mkdir(parents=True, exist_ok=True)
        tree = _store(git, b"tree", b"")
        when = f"{_AUTHOR} {at_s} +0000"
        text = f"tree {tree}\nauthor {when}\ncommitter {when}\n\nBegin\n"
        commit = _store(git, b"commit", text.encode())
        if not (git / "config").exists():
            (git / "config").write_text(_CONFIG)
        ref = git / "refs" / "heads" / branch
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(f"{commit}\n")
        (git / "HEAD").write_text(f"ref: refs/heads/{branch}\n")
    except OSError as error:
        raise InvalidInput(f"no repository can be begun in {folder}: {error.strerror}", field="repo") from error


def _unborn(folder: Path) -> str | None:
    """The branch that gets the first commit; None where there is a commit, or HEAD is on no branch."""
    layout = find_repository(str(folder))
    name, commit = read_head(layout)
    return name.removeprefix("refs/heads/") if commit is None and name.startswith("refs/heads/") else None


def _store(git: Path, kind: bytes, data: bytes) -> str:
    raw = kind + b" " + str(len(data)).encode() + b"\0" + data
    name = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
    path = git / "objects" / name[:2] / name[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(raw))
    return name
