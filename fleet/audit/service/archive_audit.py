"""Archived stories under audit: what a tombstone names is there, and is the whole story (EV-25, EV-32)."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.audit.chain import RawEntry, raw_entry
from fleet.audit.finding import LogFinding, Verdict
from fleet.audit.service.attest import Buried
from fleet.audit.service.stream_export import StreamExport, read_export
from fleet.kernel.errors import ArtifactNotFound, LogCorrupted
from fleet.trees.port import BlobStore


@dataclass(frozen=True, slots=True)
class OpenedArchive:
    """An archived story whose chain was recomputed from the stored bytes."""

    entries: tuple[RawEntry, ...]
    events: frozenset[tuple[int, str]]
    """Version and hash of each of its events: what checkpoints may have attested of it."""


async def open_archive(blobs: BlobStore, buried: Buried) -> OpenedArchive | LogFinding:
    """The story behind the tombstone, or what is wrong with its blob. StoreUnavailable when that cannot be told."""
    try:
        export = read_export(await blobs.get(buried.export))
    except ArtifactNotFound:
        detail = f"it is archived as {buried.export}, and there is no such blob; restore it from a backup"
        return _finding(Verdict.MISSING, buried, detail)
    except LogCorrupted as error:
        return _finding(Verdict.ALTERED, buried, f"it is archived as {buried.export}: {error.message}")
    return _other_story(buried, export) or _opened(export)


def _other_story(buried: Buried, export: StreamExport) -> LogFinding | None:
    end = export.head
    if (export.stream, end.version, end.hash) == (buried.stream, buried.head.version, buried.head.hash):
        return None
    detail = (
        f"its tombstone names version {buried.head.version} with hash {buried.head.hash[:12]}, while the archive "
        f"{buried.export} ends {export.stream} at version {end.version} with hash {end.hash[:12]}"
    )
    return _finding(Verdict.FORKED, buried, detail)


def _opened(export: StreamExport) -> OpenedArchive:
    entries = tuple(raw_entry(event) for event in export.events)
    return OpenedArchive(entries, frozenset((event.version, event.hash) for event in export.events))


def _finding(verdict: Verdict, buried: Buried, detail: str) -> LogFinding:
    return LogFinding(verdict, str(buried.stream), buried.head.version, detail)
