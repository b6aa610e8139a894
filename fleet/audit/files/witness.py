"""Exported checkpoints as files: written by the notary, read by whoever must notice that the log went back."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from fleet.audit.attested import attested_heads
from fleet.audit.checkpoint import SignedCheckpoint
from fleet.audit.loss import parse_loss
from fleet.audit.note import note_text
from fleet.audit.rules import another
from fleet.events.envelope import Head
from fleet.kernel.errors import ArtifactNotFound, InvalidInput, LogCorrupted, StoreFull, StoreUnavailable
from fleet.kernel.ids import Digest, StreamId

_COPY = re.compile(r"([1-9][0-9]{0,15})\.json")
_LOSS = re.compile(r"loss-[0-9a-f]{64}\.note")
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SETTLED_NS = 1_000_000_000
"""A folder that changed less than this ago may change again under the same time stamp."""


@contextmanager
def _disk_errors(doing: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        kind = StoreFull if error.errno in _NO_ROOM else StoreUnavailable
        raise kind(f"the folder of exported checkpoints cannot {doing}: {error}; mend it and repeat") from error


class CheckpointFolder:
    """One file for each checkpoint, `<sequence>.json`, and one for each accepted loss. Implements CheckpointExport.

    A file appears whole, after its bytes are on disk, and is never written again (mode 0444). Put the folder where
    those who can write the log's server cannot write.

    Args:
        announce: gets one line for each new checkpoint, so that it also leaves with the process's output.
    """

    def __init__(self, folder: Path, *, announce: Callable[[str], None] | None = None) -> None:
        self._folder = folder
        self._announce = announce

    async def write(self, signed: SignedCheckpoint, *, sequence: int) -> None:
        """The copy is on disk; the same one again changes nothing."""
        is_new = await asyncio.to_thread(self._add, f"{sequence}.json", signed.model_dump_json().encode() + b"\n")
        if not is_new and await self.read(sequence) != signed:
            raise another(sequence)
        if is_new and self._announce is not None:
            self._announce(f"checkpoint {sequence}: {len(signed.leaves)} streams, {signed.digest}")

    async def sequences(self) -> list[int]:
        """The numbers that are there, in order."""
        return sorted(int(match[1]) for name in await self._names() if (match := _COPY.fullmatch(name)))

    async def read(self, sequence: int) -> SignedCheckpoint:
        """One copy."""
        return SignedCheckpoint.parse(await self._bytes(f"{sequence}.json"))

    async def add_loss(self, note: str, *, loss: Digest) -> None:
        """The signed record is on disk under its digest; the same one again changes nothing."""
        await asyncio.to_thread(self._add, f"loss-{loss.hex}.note", note.encode())

    async def losses(self) -> list[str]:
        """Every record that is there."""
        names = [name for name in await self._names() if _LOSS.fullmatch(name)]
        return [(await self._bytes(name)).decode(errors="replace") for name in sorted(names)]

    async def _names(self) -> list[str]:
        return await asyncio.to_thread(self._list)

    def _list(self) -> list[str]:
        with _disk_errors("be listed"):
            return [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []

    async def _bytes(self, name: str) -> bytes:
        try:
            return await asyncio.to_thread((self._folder / name).read_bytes)
        except OSError as error:
            raise ArtifactNotFound(
                f"the exported file {name} cannot be read: {error}; restore it from another copy", name=name
            ) from error

    def _add(self, name: str, data: bytes) -> bool:
        with _disk_errors(f"keep {name}"):
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if (self._folder / name).exists():
                return False
            return _publish(self._folder / name, data)


def _publish(path: Path, data: bytes) -> bool:
    """The file is there with these bytes; False when another process was first."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
    finally:
        with suppress(OSError):
            temporary.unlink()
        _sync(path.parent)
    return True


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Seen(NamedTuple):
    at_ns: int
    heads: Mapping[StreamId, Head]


class FolderWitness:
    """The heads of the newest exported checkpoint. Implements the port Witness.

    The folder is trusted, so no signature is checked here; `fleet audit verify` does that. It is read again when its
    time of change differs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._export = CheckpointFolder(folder)
        self._seen: _Seen | None = None

    async def attested(self, stream: StreamId) -> Head | None:
        """Version and hash that the stream is known to have reached (epoch 0); None when no checkpoint names it.

        Raises LogCorrupted when the newest copy cannot be read: nobody may go on as if nothing had been attested.
        """
        at_ns = await asyncio.to_thread(self._changed_at)
        if self._seen is not None and self._seen.at_ns == at_ns:
            return self._seen.heads.get(stream)
        heads = await self._heads()
        self._seen = _Seen(at_ns, heads) if time.time_ns() - at_ns > _SETTLED_NS else None
        return heads.get(stream)

    def _changed_at(self) -> int:
        try:
            return self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    async def _heads(self) -> Mapping[StreamId, Head]:
        sequences = await self._export.sequences()
        if not sequences:
            return {}
        try:
            newest = await self._export.read(sequences[-1])
            losses = [parse_loss(note_text(note)) for note in await self._export.losses()]
        except (InvalidInput, ArtifactNotFound) as error:
            raise LogCorrupted(
                f"the newest exported checkpoint {sequences[-1]} cannot be read: {error.message}",
                sequence=sequences[-1],
            ) from error
        return attested_heads(newest.leaves, losses, sequence=sequences[-1])
