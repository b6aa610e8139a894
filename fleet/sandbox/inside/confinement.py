"""Which paths an edit may name: inside the workspace, through no link, not protected (RC-71, S8)."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path

_HIDDEN_GIT = re.compile(r"\.git[ .]*|git~[0-9]+", re.IGNORECASE)


def path_problem(root: Path, path: str) -> str | None:
    """Why nothing may be written at this path; None when it may."""
    parts = path.split("/")
    if not path or len(path.encode("utf-8", "replace")) > 4096 or path.startswith("/") or "\\" in path:
        return "the path must be relative to the repository, with forward slashes"
    if any(part in ("", ".", "..") for part in parts):
        return "the path has an empty, '.' or '..' component"
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        return "the path has a control character"
    if any(_HIDDEN_GIT.fullmatch(part) for part in parts):
        return "the path leads into .git"
    return _link_problem(root, parts)


def _link_problem(root: Path, parts: Sequence[str]) -> str | None:
    here = root
    for n, part in enumerate(parts):
        here = here / part
        try:
            mode = here.lstat().st_mode
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"the path cannot be used: {error.strerror}"
        is_last = n == len(parts) - 1
        if stat.S_ISLNK(mode):
            return f"'{'/'.join(parts[: n + 1])}' is a symbolic link"
        if is_last and not stat.S_ISREG(mode):
            return "the path is not a regular file"
        if not is_last and not stat.S_ISDIR(mode):
            return f"'{'/'.join(parts[: n + 1])}' is a file, not a folder"
    return None


def is_protected(path: str, globs: Sequence[str]) -> str | None:
    """The first glob that covers the path; one without a slash is compared with every component, as in .gitignore."""
    for glob in globs:
        pattern = _regex(glob.strip("/"))
        names = path.split("/") if "/" not in glob.strip("/") else [path]
        if any(pattern.fullmatch(name) for name in names):
            return glob
    return None


def _regex(glob: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "/**": "(?:/.*)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    split = re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?)", glob)
    return re.compile("".join(parts.get(part) or re.escape(part) for part in split))
