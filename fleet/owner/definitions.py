"""The files of definitions that a story keeps: those that it began with, until a move is on record (GL-23)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fleet.context.scope import ContextConfig
from fleet.council.config import CouncilConfig
from fleet.events.story import ConfigMigrated
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound, ConfigError
from fleet.kernel.ids import SYSTEM, Digest
from fleet.planning.planning_config import PlanningConfig
from fleet.policy.deploy import DeployTarget
from fleet.story.lifecycle import FsmConfig
from fleet.trees.port import BlobStore
from fleet.workspace.levels import RigorConfig

T = TypeVar("T")

KEPT_FILES = ("fsm.yaml", "planning.yaml", "rigor.yaml")
"""What a story keeps. Roles, policy, models and budgets are those in force: they say who may do what, and its price."""


@dataclass(frozen=True, slots=True)
class Definitions:
    """The configured rules that a story is worked on under (GL-23)."""

    fsm: FsmConfig
    rigor: RigorConfig
    council: CouncilConfig
    planning: PlanningConfig
    context: ContextConfig
    assignable_roles: tuple[str, ...]
    targets: tuple[DeployTarget, ...] = ()
    """Where stories are deployed; none where this fleet deploys nothing (LC-46)."""


class KeptDefinitions(Generic[T]):
    """What the kept files of each story say, whatever the files in force say by now.

    Args:
        files: the contents of the files in force, by name: `KEPT_FILES`, or those of them that are of use here.
        read: what such contents say. Raises ConfigError.
    """

    def __init__(self, files: Mapping[str, bytes], read: Callable[[Mapping[str, bytes]], T], blobs: BlobStore) -> None:
        self.present, self._files, self._read, self._blobs = read(files), files, read, blobs
        self.digests = {name: digest_of(data) for name, data in files.items()}
        # By their digests; None for those that are not to be had. Files are edited now and then: it stays small.
        self._known: dict[tuple[Digest | None, ...], T | None] = {}
        self._is_kept = False

    async def keep(self) -> None:
        """The files in force are stored, for stories that begin from here on."""
        if not self._is_kept:
            for data in self._files.values():
                await self._blobs.put(data)
            self._is_kept = True

    async def learn(self, config: Mapping[str, Digest]) -> None:
        """From here on `of` knows the files of these digests, where they are to be had.

        Raises:
            StoreUnavailable: the blob store does not answer.
        """
        wanted = self._wanted(config)
        if wanted in self._known or self._are_present(config):
            return
        self._known[wanted] = await self._stored(config)

    def of(self, config: Mapping[str, Digest]) -> T:
        """What the files of these digests say; what the files in force say where those are not known."""
        known = self._known.get(self._wanted(config))
        return self.present if known is None else known

    def moves(self, config: Mapping[str, Digest]) -> tuple[ConfigMigrated, ...]:
        """What is to be recorded of a story whose files are not to be had: it follows those in force from here on."""
        if self._known.get(self._wanted(config), self.present) is not None:
            return ()
        return tuple(
            ConfigMigrated(file=name, from_digest=before, to_digest=digest, by=SYSTEM)
            for name, digest in self.digests.items()
            if (before := config.get(name, digest)) != digest
        )

    def _wanted(self, config: Mapping[str, Digest]) -> tuple[Digest | None, ...]:
        return tuple(config.get(name) for name in self.digests)

    def _are_present(self, config: Mapping[str, Digest]) -> bool:
        """A story that names no digests began before there were any, and has always followed the files in force."""
        return all(config.get(name, digest) == digest for name, digest in self.digests.items())

    async def _stored(self, config: Mapping[str, Digest]) -> T | None:
        """None where a file was never stored, or is none that this version can read."""
        try:
            return self._read({name: await self._blobs.get(config[name]) for name in self.digests})
        except (ArtifactNotFound, ConfigError, KeyError):
            return None
