"""What a repository needs before it can be built and tested, found in its files; and who makes that."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen
from fleet.policy.workspace_file import WORKSPACE_FILE, WorkspaceFile, parse_workspace_file
from fleet.workspace.project import LayerNeeds, Read, describe_project, layer_needs

MAKING_S = 3 * 1800
"""How long one environment may take: the fetch, and its tests twice."""


class MadeEnvironment(Frozen):
    """What came of making an environment, unless it failed."""

    toolchain: str | None
    """The programs with the packages; None where the sandbox makes no environments."""
    summary: str
    """For people: what was fetched and how the tests of the base end, or why nothing was fetched."""


class Environments(Protocol):
    """Makes the environments of repositories on the node that has the runs of their stories."""

    async def make(self, needs: LayerNeeds, *, tree: Digest, commit: str) -> MadeEnvironment:
        """The environment is there, and its tests were tried on the tree of the commit. Each is made once.

        Asked again, it finds what is there and waits for what is under way; the making goes on when a caller is gone.

        Raises:
            ToolFailed: what is asked for cannot be had, or no test runs in it; says why, and what to do.
            SandboxUnavailable: nothing could hold the run, or programs of the language are missing. Ask again later.
        """
        ...


@dataclass(frozen=True, slots=True)
class RepositoryNeeds:
    """What has to be there before the work on a repository begins."""

    needs: LayerNeeds | None
    """None: nothing has to be fetched."""
    containers: tuple[str, ...] = ()
    """Files of tests that start containers themselves, which no run can do."""


def repository_needs(paths: Collection[str], read: Read) -> RepositoryNeeds:
    """What the files of a repository ask for, at the root that it declares.

    Raises:
        InvalidInput: that root has no manifest, the file that declares it is wrong, or what is asked for cannot be
            fetched; says what to do.
    """
    declared = parse_workspace_file(read(WORKSPACE_FILE)) if WORKSPACE_FILE in paths else WorkspaceFile()
    facts = describe_project(paths, read)
    part = facts.part_at(declared.root)
    if part is None and declared.root != ".":
        raise InvalidInput(
            f"{WORKSPACE_FILE}: root: {declared.root} has no manifest of Python, Node, Go or Rust; name another folder",
            field="root",
        )
    return RepositoryNeeds(layer_needs(part, paths, read) if part is not None else None, facts.containers)
