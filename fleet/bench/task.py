"""Tasks of the solve benchmark. What an arm may know and what judges it are two values that never meet in an arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SOLUTION = "solution.py"
"""Where the code of a function task lies in its tree."""


def _no_files() -> Mapping[str, bytes]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveTask:
    """What an arm is told. A function task has an entry point and no files; a repository task the reverse."""

    task_id: str
    prompt: str
    entry_point: str = ""
    setup: str = ""
    """Code that runs before the solution and its tests: imports, helper functions."""
    visible: tuple[str, ...] = ()
    """Tests that may be run and shown, each a piece of Python that passes when it raises nothing."""
    files: Mapping[str, bytes] = field(default_factory=_no_files)
    targets: tuple[str, ...] = (SOLUTION,)
    """Paths that a solution may write."""
    command: tuple[str, ...] = ()
    """Visible check of a repository task: it passes with exit code 0."""
    blind_prompt: str = ""
    """The prompt without its examples, for arms from which visible tests are withheld."""

    @property
    def is_repository(self) -> bool:
        """Whether the solution is a change of files instead of one function."""
        return not self.entry_point


@dataclass(frozen=True, slots=True, kw_only=True)
class HiddenTests:
    """What judges a solution: pieces of Python, or files and a command for a repository. Only the judge holds it."""

    tests: tuple[str, ...] = ()
    setup: str = ""
    files: Mapping[str, bytes] = field(default_factory=_no_files)
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchTask:
    """One task with its judge."""

    public: SolveTask
    hidden: HiddenTests
    solution: str = ""
    """A known solution, if the set has one; it checks the tests and reaches no prompt either."""
