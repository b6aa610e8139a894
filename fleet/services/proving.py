"""The proof of one event: its stream up to there, and the path to a signed checkpoint (EV-32)."""

from __future__ import annotations

from fleet.audit import ChainCheck, Finding, Leaf, Proof, RawEntry, SignedCheckpoint, make_proof
from fleet.errors import LogCorrupted, NotFound
from fleet.ids import StreamId
from fleet.ports import BlobStore, CheckpointExport, RawLog
from fleet.services.archive_audit import open_archive
from fleet.services.attesting import tombstones
from fleet.services.chains import follow

__all__ = ["prove"]


async def prove(raw: RawLog, export: CheckpointExport, blobs: BlobStore, *, stream: StreamId, version: int) -> Proof:
    """The proof for one event, by the oldest checkpoint that covers it; of an archived story from its archive.

    Raises:
        NotFound: the event, or a checkpoint that covers it, is not there.
        LogCorrupted: log and archive do not hold any more what that checkpoint attests.
    """
    signed, leaf = await _covering(export, stream, version=version)
    entries: list[RawEntry] = []
    chain = ChainCheck(stream, wanted=frozenset({leaf.version}))
    await follow(raw, chain, each=entries.extend)
    if chain.version == 0 and (entries := await _archived(raw, blobs, stream)):
        chain = ChainCheck(stream, wanted=frozenset({leaf.version}))
        chain.take(entries)
    if chain.findings or chain.hashes.get(leaf.version) != leaf.hash:
        raise LogCorrupted(
            f"{stream} does not hold any more what checkpoint attests at version {leaf.version}: run `fleet audit "
            "verify`",
            stream=str(stream),
            version=leaf.version,
        )
    return make_proof(signed, leaf, entries, version=version)


async def _covering(export: CheckpointExport, stream: StreamId, *, version: int) -> tuple[SignedCheckpoint, Leaf]:
    for sequence in await export.sequences():
        signed = await export.read(sequence)
        for leaf in signed.leaves:
            if leaf.stream == stream and leaf.version >= version >= 1:
                return signed, leaf
    raise NotFound(
        f"no exported checkpoint covers {stream} version {version}: look with `fleet events`, or wait a minute for "
        "the next checkpoint",
        stream=str(stream),
        version=version,
    )


async def _archived(raw: RawLog, blobs: BlobStore, stream: StreamId) -> list[RawEntry]:
    """The entries of a story that left the log; none when it was not archived."""
    projects = [name for name in await raw.listed() if name.startswith("project:")]
    buried = (await tombstones(raw, projects)).of(stream)
    if not buried:
        return []
    found = await open_archive(blobs, buried[-1])
    if isinstance(found, Finding):
        raise LogCorrupted(f"{found}", stream=str(stream))
    return list(found.entries)
