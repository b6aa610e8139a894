"""What a path of a call names in a recorded tree; links are never followed (RT-57)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.policy.arguments import glob_matches
from fleet.trees.tree import FileEntry, Tree, check_path

PathKind = Literal["file", "folder", "link", "submodule", "missing"]
_KINDS: dict[str, PathKind] = {"100644": "file", "100755": "file", "120000": "link", "160000": "submodule"}


class PathInTree(NamedTuple):
    """What is at a path; `blocked_by` is the file or submodule that stands where one of its folders would be."""

    path: str
    kind: PathKind
    entry: FileEntry | None = None
    blocked_by: str = ""


def place_of(tree: Tree, path: str, *, may_be_link: bool = False) -> PathInTree:
    """What is at the path; `.` is the root, which is a folder always.

    Args:
        may_be_link: the call is about the link itself, and does not look where it leads.

    Raises:
        PolicyDenied: rule `path_outside`: the path leaves the workspace by its text, or passes or ends in a link.
    """
    if path == ".":
        return PathInTree(".", "folder")
    try:
        check_path(path)
    except InvalidInput as error:
        raise PolicyDenied(f"{error.message}; name a path below the workspace", rule_id="path_outside") from error
    for end in (i for i, c in enumerate(path) if c == "/"):
        if (above := tree.get(path[:end])) is not None:
            if above.mode == "120000":
                raise _linked(path[:end])
            return PathInTree(path, "missing", blocked_by=path[:end])
    entry = tree.get(path)
    if entry is not None:
        if entry.mode == "120000" and not may_be_link:
            raise _linked(path)
        return PathInTree(path, _KINDS[entry.mode], entry)
    return PathInTree(path, "folder" if any(below(tree, path)) else "missing")


def _linked(path: str) -> PolicyDenied:
    return PolicyDenied(
        f"{path!r} is a symbolic link, and links are never followed: name the file that it stands for",
        rule_id="path_outside",
        path=path,
    )


def below(tree: Tree, folder: str) -> Iterator[str]:
    """Every path below the folder."""
    start = "" if folder == "." else f"{folder}/"
    return (path for path in tree if path.startswith(start))


def check_writable(path: str, globs: tuple[str, ...]) -> None:
    """Return when a file at this path may be changed; PolicyDenied (rule `path_not_granted`) otherwise."""
    if globs and not any(glob_matches(glob, path) for glob in globs):
        raise PolicyDenied(
            f"{path!r} may not be changed: this role writes only {', '.join(globs)}",
            rule_id="path_not_granted",
            path=path,
        )
