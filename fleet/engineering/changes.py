"""What a session changed, as trees: moved onto another base, judged by the tests of the base, reviewed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from sys import stdlib_module_names
from typing import NamedTuple

from fleet.policy.arguments import glob_matches
from fleet.trees.service import is_test
from fleet.trees.tree import Tree, changed_paths

JUDGES = (
    *("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", ".coveragerc"),
    *("ruff.toml", ".ruff.toml", "sitecustomize.py", "usercustomize.py", "*.pth"),
    *("**/*.dist-info/**", "**/*.egg-info/**", ".cargo/**", ".config/nextest.toml"),
    *("jest.config.*", "vitest.config.*", "vitest.workspace.*", ".mocharc*", ".nycrc*", ".c8rc*"),
    *(".eslintrc*", "eslint.config.*", ".github/**", ".ci/**", ".fleet/**"),
)
"""What decides how work is judged: an author's version of it does not count, not even a new one.

Settings that stand in files with other things are those of `fleet.engineering.settings`.
"""
_RUNNERS = frozenset({"pytest", "_pytest", "pluggy", "iniconfig", "coverage", "ruff", "xdist"})
_MODULE = re.compile(r"(?:src/)?(\w+)(?:/__init__)?(?:\.[\w-]+)*\.(?:py|pyc|so|pyd)")
_STRAY = ("*.orig", "*.rej", "*.bak", "*.swp", "*~", "scratch*", "tmp*", "debug*", "nohup.out", "*.log")
_RULES = ("AGENTS.md", "CLAUDE.md", ".cursorrules", "**/*.lock", "*.lock", "package-lock.json", "go.sum")
_LISTED = 30


class Judged(NamedTuple):
    """The tree that evidence is taken of, and what of the author's tree is not in it."""

    tree: Tree
    restored: tuple[str, ...]
    """Tests and settings of the base that the author had changed or removed: they are as they were."""
    left_out: tuple[str, ...]
    """New files that would decide how the work is judged."""
    merged: tuple[str, ...] = ()
    """Files with settings among other things: those settings are the base's."""


class Moved(NamedTuple):
    """The changes on top of another tree, and the paths that both have changed in different ways."""

    tree: Tree
    conflicts: tuple[str, ...]


def judged(head: Tree, base: Tree) -> Judged:
    """The head with each test of the base as it was, and without new settings of the judges."""
    tree, restored, left_out = dict(head), list[str](), list[str]()
    for change in changed_paths(base, head):
        path = change.path
        if path in base and (is_test(path) or is_judge(path)):
            tree[path] = base[path]
            restored.append(path)
        elif path not in base and (is_judge(path) or shadows_runner(path, base)):
            del tree[path]
            left_out.append(path)
    return Judged(tree, tuple(restored), tuple(left_out))


def is_judge(path: str) -> bool:
    """Whether the file decides how work is judged, wherever in the repository it lies."""
    return _fits(path, JUDGES)


def shadows_runner(path: str, base: Tree) -> bool:
    """Whether a new file would be imported instead of a module that the tests are run with.

    The project's folders come first where its tests look for modules. A name that the base has is the project's own.
    """
    found = _MODULE.fullmatch(path)
    if found is None:
        return False
    name = found.group(1)
    if name not in _RUNNERS and name not in stdlib_module_names:
        return False
    own = tuple(f"{folder}{name}{end}" for folder in ("", "src/") for end in (".", "/"))
    return not any(other.startswith(own) for other in base)


def _fits(path: str, globs: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(glob_matches(glob, path) or ("/" not in glob and glob_matches(glob, name)) for glob in globs)


def moved(base: Tree, head: Tree, onto: Tree) -> Moved:
    """What turned `base` into `head`, done to `onto`; a path that `onto` has changed otherwise stays as it is there."""
    tree, conflicts = dict(onto), list[str]()
    for change in changed_paths(base, head):
        path = change.path
        before, after, there = base.get(path), head.get(path), onto.get(path)
        if there not in (before, after):
            conflicts.append(path)
        elif after is None:
            tree.pop(path, None)
        else:
            tree[path] = after
    return Moved(tree, tuple(conflicts))


def blocked_by(tree: Tree, path: str) -> str:
    """Why no file can be at this path; "" when one can."""
    for end in (index for index, char in enumerate(path) if char == "/"):
        if path[:end] in tree:
            return f"{path[:end]} is a file, so nothing can be below it"
    if any(other.startswith(f"{path}/") for other in tree):
        return f"{path} is a folder"
    return ""


class Review(NamedTuple):
    """What the first submission is answered with, beside the diff."""

    changed: tuple[str, ...]
    """Each changed path with a sign: + new, - gone, ~ changed."""
    remarks: tuple[str, ...]
    """What should be looked at before the second submission."""


def reviewed(base: Tree, head: Tree, found: Judged) -> Review:
    """What the changed paths say of the work, and what of it is not judged."""
    signs = {"added": "+", "removed": "-", "modified": "~"}
    changes = changed_paths(base, head)
    rows = [f"{signs[change.change]} {' '.join(change.path.split())[:200]}" for change in changes]
    more = [f"... and {len(rows) - _LISTED} more"] if len(rows) > _LISTED else []
    stray = [c.path for c in changes if c.change == "added" and _fits(c.path, _STRAY) and not is_test(c.path)]
    rules = [c.path for c in changes if _fits(c.path, _RULES)]
    remarks: list[str] = []
    if found.restored:
        remarks.append(
            f"These tests or settings were there before and are judged as they were: {_named(found.restored)}. If the "
            "work needs other expectations, add new tests and say so in the summary."
        )
    if found.left_out:
        remarks.append(f"These decide how work is judged and are left out: {_named(found.left_out)}.")
    if found.merged:
        remarks.append(
            f"Settings of tests and linters stay as they were before, the rest of these files counts: "
            f"{_named(found.merged)}."
        )
    if stray:
        remarks.append(f"These look like leftovers; remove them unless the task asks for them: {_named(stray)}.")
    if rules:
        remarks.append(f"Lock files or rules for agents changed: {_named(rules)}. Undo it unless the task asks for it.")
    return Review((*rows[:_LISTED], *more), tuple(remarks))


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - 10} more" if len(paths) > 10 else ""
    return ", ".join(paths[:10]) + more
