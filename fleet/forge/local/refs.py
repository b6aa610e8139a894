"""Read refs from files: which commit a name means, and which names exist (loose and packed)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from fleet.forge.local.layout import RepositoryLayout
from fleet.forge.local.objects import has_object, read_object
from fleet.kernel.errors import InvalidInput

_ID = re.compile(r"[0-9a-f]{40}")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^/|/$|\.$|(^|/)\.|\.lock(/|$)|^@$")
_MAX_REF_BYTES = 4096
_MAX_LINKS = 5
_MAX_TAGS = 5


def check_branch(branch: str) -> str:
    """The branch name when git accepts it (git-check-ref-format); InvalidInput otherwise."""
    if not branch or len(branch.encode("utf-8", "replace")) > 200 or _BAD_REF.search(branch) or branch[0] == "-":
        raise InvalidInput(f"{branch[:100]!r} is no branch name that git accepts", branch=branch[:200])
    return branch


def pinned(layout: RepositoryLayout, ref: str | None, url: str) -> tuple[str, str]:
    """Commit id and branch that `ref` means now (None: the current branch).

    Looked up as a branch, a tag, a full ref name, a remote branch, a full commit id, in this order.

    Raises:
        InvalidInput: no commit yet, no such ref, or no commit behind it.
    """
    if ref is None:
        name, commit = read_head(layout)
        if commit is None:
            raise InvalidInput(
                f"{url} has no commit yet: run `git add -A` and `git commit -m Begin` there first (on {_short(name)})",
                url=url,
            )
        return _commit_of(layout, commit, url), _short(name)
    for name in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref, f"refs/remotes/{ref}"):
        if name.startswith("refs/") and not _BAD_REF.search(name) and (commit := read_ref(layout, name)):
            return _commit_of(layout, commit, url), _short(name)
    if _ID.fullmatch(ref) and has_object(layout.objects, ref):
        return _commit_of(layout, ref, url), _short(read_head(layout)[0])
    raise InvalidInput(
        f"{url} has no branch, tag or commit '{ref[:100]}': name one that `git branch -a` lists, or a full commit id",
        url=url,
        ref=ref[:200],
    )


def _short(name: str) -> str:
    for prefix in ("refs/heads/", "refs/tags/", "refs/remotes/"):
        name = name.removeprefix(prefix)
    return name


def read_head(layout: RepositoryLayout) -> tuple[str, str | None]:
    """Full name of the branch that HEAD is on, and its commit; None where it has none yet."""
    text = _read_small(layout.git_dir / "HEAD")
    if text.startswith("ref:"):
        name = text[4:].strip()
        return name, read_ref(layout, name)
    return "HEAD", text if _ID.fullmatch(text) else None


def read_ref(layout: RepositoryLayout, name: str) -> str | None:
    """The object id at a full ref name, links followed; None when there is none."""
    for _ in range(_MAX_LINKS):
        if not name.startswith("refs/") or _BAD_REF.search(name):
            return None
        text = _read_small(layout.common_dir / name)
        if not text.startswith("ref:"):
            return text if _ID.fullmatch(text) else read_packed(layout).get(name)
        name = text[4:].strip()
    return None


def _read_small(path: Path) -> str:
    try:
        # A link is not followed: refs are files, and HEAD as a link has been gone from git for decades.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _MAX_REF_BYTES).decode("utf-8", "replace").strip() if is_file else ""
    finally:
        os.close(descriptor)


def read_packed(layout: RepositoryLayout) -> Mapping[str, str]:
    """Full name -> object id of the packed refs."""
    try:
        lines = (layout.common_dir / "packed-refs").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    refs: dict[str, str] = {}
    for line in lines:
        object_id, _, name = line.partition(" ")
        if _ID.fullmatch(object_id) and name.startswith("refs/"):
            refs[name.strip()] = object_id
    return refs


def all_refs(layout: RepositoryLayout) -> dict[str, str]:
    """Full name -> object id of every ref that can be read; a loose one wins over a packed one."""
    refs = dict(read_packed(layout))
    root = layout.common_dir / "refs"
    for folder, _, files in os.walk(root):
        for file in files:
            name = (Path(folder, file)).relative_to(layout.common_dir).as_posix()
            if object_id := read_ref(layout, name):
                refs[name] = object_id
    return refs


def _commit_of(layout: RepositoryLayout, object_id: str, url: str) -> str:
    for _ in range(_MAX_TAGS):
        git_object = read_object(layout.objects, object_id)
        if git_object is None:
            raise InvalidInput(f"{url} lacks object {object_id}: run `git fsck` there", url=url, object=object_id)
        if git_object.kind in ("commit", "unknown"):
            return object_id
        if git_object.tagged is None:
            break
        object_id = git_object.tagged
    raise InvalidInput(f"{url}: {object_id} is not a commit", url=url, object=object_id)


def checked_out(layout: RepositoryLayout) -> set[str]:
    """Full names of the branches that some working tree has checked out."""
    heads = [layout.common_dir / "HEAD", *sorted((layout.common_dir / "worktrees").glob("*/HEAD"))]
    texts = [_read_small(head) for head in heads]
    return {text[4:].strip() for text in texts if text.startswith("ref:")}
