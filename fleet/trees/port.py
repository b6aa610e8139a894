"""Port: bytes by their digest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol

from fleet.kernel.clock import Clock
from fleet.kernel.ids import Digest
from fleet.kernel.plugin import Options, Plugin, ReadSecrets

FolderKind = Literal["bases", "folders"]
DiskKind = Literal[FolderKind, "toolchains", "layers", "blobs"]


@dataclass(frozen=True, slots=True)
class Evicted:
    """Something that had to make room."""

    name: str
    size_bytes: int
    at: str
    """Moment in UTC, as ISO 8601 writes it."""


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What one kind of things takes on the disk of a node, in bytes as the disk counts them."""

    kind: DiskKind
    used_bytes: int
    held_bytes: int
    """Of it, what is in use now, or is the only copy of what is on record; it is never evicted."""
    count: int
    limit_bytes: int | None = None
    """None: it has no limit."""
    node: str = ""
    """Name of the supervisor that says so."""
    folder: str = ""
    """Where they lie on that node."""
    evicted: tuple[Evicted, ...] = ()
    """Environment layers that made room, the newest last; of other kinds none is told by name."""


class BlobStore(Protocol):
    """Immutable bytes. A digest that `put` returned can be read for as long as a stream names it."""

    async def put(self, data: bytes) -> Digest:
        """The bytes are on disk under their digest; putting them again changes nothing. StoreFull, StoreUnavailable."""
        ...

    async def get(self, digest: Digest) -> bytes:
        """The bytes; ArtifactNotFound when there are none, LogCorrupted when they no longer match their digest."""
        ...

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """The bytes of each in this order, all of them in memory at once. The errors of `get` for any of them.

        For many small blobs, whose way here costs more than their bytes.
        """
        ...

    async def has(self, digest: Digest) -> bool:
        """Whether `get` would find it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStoreParts:
    """What a blob store is made from."""

    home: Path
    """Folder of the fleet's data on this machine."""
    clock: Clock
    secrets: ReadSecrets
    """Reads the secrets that the plug-in names."""


def _none(options: object) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStorePlugin(Plugin[Options, BlobStoreParts, BlobStore], Generic[Options]):
    """What an entry point of the group `swe_fleet.blob_stores` leads to."""

    secrets: Callable[[Options], Sequence[str]] = _none
    """Names of the secrets that it will read; a fleet does not start before they are kept and granted."""
    is_shared: bool
    """Whether every machine of a fleet finds what another one stored; if not, a fleet has one machine."""
    check: Callable[[Options, BlobStoreParts], Awaitable[None]] | None = None
    """Asks the store before a fleet starts with it. Default: one blob is put and read."""
