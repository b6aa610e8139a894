"""Path globs of tasks: which are allowed, and which can never touch the same file (PL-20, PL-41)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

__all__ = ["is_repository_glob", "paths_overlap"]

MAX_GLOB = 200


def is_repository_glob(text: str) -> bool:
    """True for a glob that stays inside the repository: relative, no `..`, no empty part, at most 200 characters."""
    if not 0 < len(text) <= MAX_GLOB or "\\" in text or not text.isprintable() or text != text.strip():
        return False
    parts = text.removesuffix("/").split("/")
    return all(p not in ("", ".", "..") and p.lower() != ".git" for p in parts)


def paths_overlap(first: Sequence[str], second: Sequence[str], *, optimistic: bool = False) -> bool:
    """True unless the two sets of globs cannot name one file (PL-41).

    A glob that names a folder covers all below it. Where exactness would cost more than it gives (`[...]`), the
    answer errs towards True.

    Args:
        optimistic: a task without paths then overlaps nothing instead of everything.
    """
    if not first or not second:
        return not optimistic
    return any(_overlap(_parts(a), _parts(b)) for a in first for b in second)


def _parts(glob: str) -> tuple[str, ...]:
    parts: list[str] = []
    for part in glob.strip("/").split("/"):
        # Two `**` in a row say no more than one and would cost exponential time.
        if part != "**" or parts[-1:] != ["**"]:
            parts.append(part)
    return tuple(parts)


@lru_cache(maxsize=1 << 16)
def _overlap(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    if not a or not b:
        return True  # the shorter one is a folder above the other
    if a[0] == "**":
        return _overlap(a[1:], b) or _overlap(a, b[1:])
    if b[0] == "**":
        return _overlap(a, b[1:]) or _overlap(a[1:], b)
    return _parts_meet(a[0], b[0]) and _overlap(a[1:], b[1:])


def _parts_meet(a: str, b: str) -> bool:
    """True when some name matches both patterns of one path part.

    `reached` holds the positions in `b` that some common beginning can lead to.
    """
    if "[" in a or "[" in b or "{" in a or "{" in b:
        return True
    reached = _skip_stars({0}, b)
    for char in a:
        if char == "*":
            reached = set(range(min(reached, default=len(b) + 1), len(b) + 1))
        else:
            steps = {i if b[i] == "*" else i + 1 for i in reached if i < len(b) and _same(char, b[i])}
            reached = _skip_stars(steps, b)
    return len(b) in reached


def _same(a: str, b: str) -> bool:
    return a == b or a == "?" or b in "?*"


def _skip_stars(positions: set[int], pattern: str) -> set[int]:
    found = set(positions)
    for i in positions:
        while i < len(pattern) and pattern[i] == "*":
            i += 1
            found.add(i)
    return found
