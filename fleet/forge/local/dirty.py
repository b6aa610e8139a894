"""Which files of a working tree differ from a commit's files, found by hashing, without git (S22)."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_SKIPPED = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".mypy_cache", ".pytest_cache"})
_MAX_BYTES = 64 << 20


class _Committed(Protocol):
    """A file of a commit: its mode, and git's id of its bytes."""

    @property
    def mode(self) -> str: ...
    @property
    def blob(self) -> str: ...


@dataclass(frozen=True, slots=True)
class DirtyPaths:
    """What is in the working tree but not in the run; `is_complete` is false when the limit ended the search."""

    modified: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    untracked: tuple[str, ...] = ()
    is_complete: bool = True

    def warnings(self, *, show: int = 5) -> tuple[str, ...]:
        """One line per kind that names the first files."""
        kinds = (("changed", self.modified), ("deleted", self.removed), ("untracked", self.untracked))
        return tuple(
            f"{len(paths)} {kind} file{'s' if len(paths) > 1 else ''} not part of the run: {_named(paths, show)}"
            for kind, paths in kinds
            if paths
        )


def _named(paths: Sequence[str], show: int) -> str:
    rest = len(paths) - show
    return ", ".join(paths[:show]) + (f" and {rest} more" if rest > 0 else "")


def dirty_paths(
    worktree: Path, tree: Mapping[str, _Committed], *, filtered: Collection[str] = (), limit: int = 20_000
) -> DirtyPaths:
    """The files of the working tree that differ from those of the commit, by content.

    A best effort for a warning: `.gitignore` counts at the top alone and without `!`. Line ends that a checkout
    converted do not look modified.

    Args:
        filtered: paths whose content a filter changes (LFS), which are not compared.
        limit: files looked at, at most.
    """
    ignored = _ignore_patterns(worktree)
    seen: set[str] = set()
    modified: list[str] = []
    untracked: list[str] = []
    is_complete = True
    for path, info in _files(worktree, tree, ignored):
        if len(seen) >= limit:
            is_complete = False
            break
        seen.add(path)
        if path not in tree:
            untracked.append(path)
        elif path not in filtered and not _is_same(worktree / path, info, tree[path]):
            modified.append(path)
    links = {p for p, e in tree.items() if e.mode == "160000"}
    removed = sorted(p for p in tree if p not in seen and p not in links) if is_complete else []
    return DirtyPaths(tuple(modified), tuple(removed), tuple(untracked), is_complete)


def _files(root: Path, tree: Mapping[str, _Committed], ignored: Sequence[str]) -> Iterator[tuple[str, os.stat_result]]:
    modules = {path for path, entry in tree.items() if entry.mode == "160000"}
    tracked = {parent for path in tree for parent in _parents(path)}
    for folder, folders, files in os.walk(root):
        here = Path(folder).relative_to(root).as_posix()
        prefix = "" if here == "." else f"{here}/"
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        inner = [n for n in folders if n not in links and prefix + n not in modules and n != ".git"]
        folders[:] = sorted(
            n for n in inner if prefix + n in tracked or not (n in _SKIPPED or _is_ignored(f"{prefix}{n}/", ignored))
        )
        for name in sorted([*files, *links]):
            path = prefix + name
            if path in tree or not (name == ".git" or name.endswith(".pyc") or _is_ignored(path, ignored)):
                yield path, (Path(folder) / name).lstat()


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _is_same(file: Path, info: os.stat_result, entry: _Committed) -> bool:
    if stat.S_ISLNK(info.st_mode):
        return entry.mode == "120000" and _git_id(os.fsencode(file.readlink())) == entry.blob
    if not stat.S_ISREG(info.st_mode) or entry.mode == "120000":
        return False
    if (entry.mode == "100755") != bool(info.st_mode & stat.S_IXUSR):
        return False
    # A file too large to read for a warning passes as unchanged.
    return info.st_size > _MAX_BYTES or entry.blob in _ids(file)


def _ids(file: Path) -> tuple[str, ...]:
    try:
        data = file.read_bytes()
    except OSError:
        return ()
    return (_git_id(data), _git_id(data.replace(b"\r\n", b"\n"))) if b"\r\n" in data else (_git_id(data),)


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _ignore_patterns(root: Path) -> list[str]:
    try:
        lines = (root / ".gitignore").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith(("#", "!"))]


def _is_ignored(path: str, patterns: Sequence[str]) -> bool:
    is_folder, path = path.endswith("/"), path.rstrip("/")
    for pattern in patterns:
        if pattern.endswith("/") and not is_folder:
            continue
        bare = pattern.strip("/")
        subject = path if "/" in bare or pattern.startswith("/") else path.rsplit("/", 1)[-1]
        if fnmatch.fnmatchcase(subject, bare.removeprefix("**/")):
            return True
    return False
