"""Port: where a story's code comes from and where its result goes (RC-70, RC-77, PL-43)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.ids import Digest

__all__ = ["Commit", "Forge", "StagedRepository"]


@dataclass(frozen=True, slots=True)
class StagedRepository:
    """A pinned copy of a repository's objects and refs, without its config and hooks.

    `name` is 64 hex digits and is what RepoMount names; `commit` is the pinned commit id; `branch` the branch it was
    read from; `warnings` name what is not part of the run (uncommitted changes, untracked files, submodules).
    """

    name: str
    commit: str
    branch: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit that left the sandbox: its id, the commit it builds on, and the pack that holds its new objects."""

    commit: str
    base_commit: str
    pack: Digest
    pack_index: Digest


class Forge(Protocol):
    """Local repositories now; hosted forges later. Never runs git itself: git is a tool inside the sandbox."""

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        """Pin the commit of `ref` (the current branch when None) and copy what a run needs to see of the repository.

        Raises InvalidInput: missing path, not a repository, bare repository without commits, unborn branch, unknown
        ref, unsupported object format. The user's repository is only read.
        """
        ...

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """`refs/heads/<branch>` of the repository is at `commit`; done again it changes nothing (KEYED).

        The pack is copied and the ref created by lock file; nothing else in the repository is touched.
        Raises VersionConflict when the ref is neither at `expected_old` (None: absent) nor at the commit already;
        InvalidInput when the name cannot exist beside present refs.
        """
        ...
