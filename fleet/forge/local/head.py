"""What a run starts from, and what of a folder it will not see, read without git (S22)."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.forge.local.dirty import DirtyPaths, dirty_paths
from fleet.forge.local.layout import RepositoryLayout, find_repository
from fleet.forge.local.objects import GitObject, read_whole
from fleet.forge.local.refs import pinned
from fleet.kernel.errors import InvalidInput

MOST_FILES = 20_000
"""Files that are looked at before a run; a larger repository is not compared with its folder."""
_ATTRIBUTES = ".gitattributes"
_TREE, _SUBMODULE = "40000", "160000"


class GitFile(NamedTuple):
    """One file of a commit: its mode, and git's id of its bytes."""

    mode: str
    blob: str


@dataclass(frozen=True, slots=True)
class HeadLook:
    """The commit that a run would start from, and what to know before it does."""

    commit: str
    branch: str
    files: Mapping[str, GitFile] = field(default_factory=dict[str, GitFile])
    """Empty where there are more than `MOST_FILES`."""
    warnings: tuple[str, ...] = ()
    """One line each: what the run will not see, and what to do about it."""


def look_at_head(url: str) -> HeadLook:
    """What a run on the repository at this folder would start from; nothing is copied or changed.

    Raises:
        InvalidInput: no repository, no commit yet, or one that cannot be read; says what to do.
    """
    try:
        layout = find_repository(url)
        commit, branch = pinned(layout, None, url)
        files = _committed_files(layout, commit, url)
        return HeadLook(commit, branch, files or {}, _warnings(layout, commit, branch, files))
    except OSError as error:
        raise InvalidInput(f"{url} cannot be read: {error.strerror} ({error.filename})", url=url) from error


def head_reader(url: str) -> Callable[[GitFile], bytes]:
    """Reads the bytes of committed files of the repository at this folder.

    Raises:
        InvalidInput: no repository; the reader raises it for an object that is not there.
    """
    layout = find_repository(url)
    return lambda file: _object(layout, file.blob, url).data


def _committed_files(layout: RepositoryLayout, commit: str, url: str) -> dict[str, GitFile] | None:
    """Path -> file of the commit; None where there are too many."""
    files: dict[str, GitFile] = {}
    waiting = [("", _object(layout, commit, url).tree or "")]
    while waiting:
        prefix, tree = waiting.pop()
        for mode, name, object_id in _object(layout, tree, url).entries():
            if mode == _TREE:
                waiting.append((f"{prefix}{name}/", object_id))
            else:
                files[prefix + name] = GitFile(mode, object_id)
        if len(files) > MOST_FILES:
            return None
    return files


def _object(layout: RepositoryLayout, object_id: str, url: str) -> GitObject:
    found = read_whole(layout.objects, object_id)
    if found is None:
        raise InvalidInput(f"{url} lacks object {object_id}: run `git fsck` there", url=url, object=object_id)
    return found


def _warnings(
    layout: RepositoryLayout, commit: str, branch: str, files: Mapping[str, GitFile] | None
) -> tuple[str, ...]:
    if files is None:
        return (f"more than {MOST_FILES} files: changes that are not committed were not looked for",)
    large = _kept_by_lfs(layout, files)
    lines = (*_of_submodules(files), *_of_large_files(large), *_under_way(layout))
    if layout.worktree is None:
        return lines
    dirt = dirty_paths(layout.worktree, files, filtered=frozenset(large))
    return (*_of_dirt(dirt, commit, branch), *lines)


def _of_dirt(dirt: DirtyPaths, commit: str, branch: str) -> tuple[str, ...]:
    told = dirt.warnings()
    start = f"the run starts from commit {commit[:12]} of {branch}: commit first what it shall see"
    return (*told, start) if told else ()


def _of_submodules(files: Mapping[str, GitFile]) -> tuple[str, ...]:
    modules = sorted(path for path, file in files.items() if file.mode == _SUBMODULE)
    if not modules:
        return ()
    return (
        f"{_counted(modules, 'submodule')} not part of the run ({_first(modules)}): tests that need them fail; commit "
        "their files into the repository, or leave those tests out",
    )


def _of_large_files(paths: Sequence[str]) -> tuple[str, ...]:
    if not paths:
        return ()
    return (
        f"{_counted(paths, 'file')} kept by Git LFS ({_first(paths)}): the run sees their pointers alone; tests that "
        "read them need `git lfs migrate export`, or are left out",
    )


def _under_way(layout: RepositoryLayout) -> tuple[str, ...]:
    kinds = (("MERGE_HEAD", "merge"), ("rebase-merge", "rebase"), ("CHERRY_PICK_HEAD", "cherry-pick"))
    return tuple(
        f"a {what} is under way: finish it first, or only what is committed is part of the run"
        for name, what in kinds
        if (layout.git_dir / name).exists()
    )


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what} is" if len(names) == 1 else f"{len(names)} {what}s are"


def _first(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _kept_by_lfs(layout: RepositoryLayout, files: Mapping[str, GitFile]) -> list[str]:
    """The files that an attribute of the commit hands to Git LFS."""
    kept: set[str] = set()
    for path in sorted(p for p in files if p == _ATTRIBUTES or p.endswith(f"/{_ATTRIBUTES}")):
        found = read_whole(layout.objects, files[path].blob)
        text = found.data.decode("utf-8", "replace") if found is not None else ""
        patterns = [line.split()[0] for line in text.splitlines() if "filter=lfs" in line.split()[1:]]
        prefix = path.removesuffix(_ATTRIBUTES)
        kept |= {p for p in files if p.startswith(prefix) and _matches(p.removeprefix(prefix), patterns)}
    return sorted(kept)


def _matches(path: str, patterns: Sequence[str]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(path if "/" in p.strip("/") else name, p.strip("/")) for p in patterns)
