"""Port: where a story's code comes from and where its result goes (RC-70, RC-77, PL-43)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fleet.ids import Digest

__all__ = ["Commit", "FetchedRepository", "Forge", "StagedRepository"]


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


@dataclass(frozen=True, slots=True)
class FetchedRepository:
    """What a run brought of a repository on another machine: one pack with the whole history of the commit (RC-70)."""

    url: str
    """In its one form (`GitAddress.url`)."""
    commit: str
    branch: str
    pack: Digest
    pack_index: Digest
    refs: Mapping[str, str] = field(default_factory=dict[str, str])
    """Full name -> object id of the refs that were fetched."""


class Forge(Protocol):
    """Repositories of this machine, and copies of those that runs fetched. Never runs git itself."""

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        """Pin the commit of `ref` (the current branch when None) and copy what a run needs to see of the repository.

        Raises InvalidInput: missing path, not a repository, bare repository without commits, unborn branch, unknown
        ref, unsupported object format. The user's repository is only read.
        """
        ...

    async def stage_fetched(self, fetched: FetchedRepository) -> StagedRepository:
        """What was fetched, as a staged copy; the same again changes nothing, and a lost copy is made anew.

        Raises InvalidInput when pack and index are damaged, do not fit or do not hold the commit; ArtifactNotFound
        when they are no longer stored.
        """
        ...

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """`refs/heads/<branch>` of the repository is at `commit`; done again it changes nothing (KEYED).

        The pack is copied and the ref created by lock file; nothing else in the repository is touched.
        Raises VersionConflict when the ref is neither at `expected_old` (None: absent) nor at the commit already;
        InvalidInput when the name cannot exist beside present refs.
        """
        ...
