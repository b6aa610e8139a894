"""The audit opens what is archived: a story that left the log is still there, whole, and the attested one (EV-25)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet.audit.files.ed25519 import Ed25519Verifier
from fleet.audit.proof import check_proof
from fleet.audit.service.stream_export import export_stream
from fleet.events.envelope import Head
from fleet.events.project import StoryTombstoned
from fleet.kernel.errors import ArtifactNotFound, LogCorrupted, StoreUnavailable
from fleet.kernel.ids import Digest, StoryId, StreamId
from fleet.trees.memory import MemoryBlobStore
from tests.support.audit import SIGNER, AuditWorld

ONE, TWO, PROJECT = StreamId("story:st-one"), StreamId("story:st-two"), StreamId("project:pr-one")


class Blobs(MemoryBlobStore):
    """Blobs that somebody else can get at."""

    def __init__(self) -> None:
        super().__init__()
        self.swapped: dict[Digest, bytes | Exception] = {}

    async def get(self, digest: Digest) -> bytes:
        match self.swapped.get(digest):
            case Exception() as error:
                raise error
            case None:
                return await super().get(digest)
            case bytes() as data:
                return data


class World(AuditWorld):
    """Two stories, attested at 4 and 2 events; the first one was archived with 6 and attested as such."""

    digest: Digest

    def __init__(self) -> None:
        super().__init__()
        self.blobs: Blobs = Blobs()

    async def archive(self, stream: StreamId, *, export: bytes = b"", end: Head | None = None) -> Digest:
        """The story left the log; its tombstone names `export` and `end` when they are given."""
        head = await self.log.head(stream)
        data = export or export_stream(await self.log.read(stream), await self.log.commands(stream))
        digest, last = await self.blobs.put(data), end or head
        await self.append(
            PROJECT,
            StoryTombstoned(
                story_id=StoryId(stream.entity), export_digest=digest, last_version=last.version, last_hash=last.hash
            ),
        )
        await self.log.erase(stream, expected=head)
        return digest

    async def found(self) -> list[tuple[str, str, int | None]]:
        return [(f.verdict.value, f.subject, f.version) for f in (await self.verify()).findings]


@pytest.fixture
async def world() -> World:
    made = World()
    await made.append(ONE, b"1", b"2", b"3", b"4")
    await made.append(TWO, b"1", b"2")
    await made.notary().checkpoint()
    await made.append(ONE, b"5", b"6")
    made.digest = await made.archive(ONE)
    await made.notary().checkpoint()
    return made


@pytest.mark.rule("EV-25", "EV-32")
async def test_archived_story_is_opened_and_clean(world: World) -> None:
    told: list[tuple[str, int, int]] = []
    report = await world.auditor().verify(progress=lambda *now: told.append(now))
    assert (report.findings, report.archives, report.streams) == ((), 1, 2)
    assert told[-1] == ("archived stories", 1, 1)


@pytest.mark.rule("EV-25", "EV-32")
async def test_archive_that_is_gone_is_missing(world: World) -> None:
    world.blobs.swapped[world.digest] = ArtifactNotFound("no such blob")
    assert await world.found() == [("missing", ONE, 6)]
    (finding,) = (await world.verify()).findings
    assert world.digest in finding.detail
    world.blobs.swapped[world.digest] = LogCorrupted("it no longer matches its digest")
    assert await world.found() == [("altered", ONE, 6)]


@pytest.mark.rule("EV-25", "EV-32")
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b'"b":"NQ=="', b'"b":"Ng=="'),
        lambda data: data[:-1],
        lambda data: b"".join(line for line in data.splitlines(keepends=True) if b'"id":"3-0"' not in line),
        lambda data: b"\xff" + data,
        lambda data: b"",
    ],
    ids=["another body", "cut", "an event less", "no text", "empty"],
)
async def test_archive_that_was_tampered_with_is_altered(world: World, change: Callable[[bytes], bytes]) -> None:
    whole = await world.blobs.get(world.digest)
    world.blobs.swapped[world.digest] = change(whole)
    assert world.blobs.swapped[world.digest] != whole
    assert await world.found() == [("altered", ONE, 6)]


@pytest.mark.rule("EV-25", "EV-32")
async def test_archive_of_another_story_or_end_is_forked(world: World) -> None:
    other = AuditWorld()
    await other.append(ONE, *(b"other %d" % n for n in range(6)))
    await other.append(TWO, b"1", b"2")
    for stream in (ONE, TWO):
        export = export_stream(await other.log.read(stream), await other.log.commands(stream))
        world.blobs.swapped[world.digest] = export
        assert await world.found() == [("forked", ONE, 6)]


@pytest.mark.rule("EV-25", "EV-32")
async def test_story_that_was_rewritten_on_its_way_to_the_archive_is_forked(world: World) -> None:
    other = AuditWorld()
    head = await other.append(TWO, b"1", b"another", b"3")
    export = export_stream(await other.log.read(TWO), await other.log.commands(TWO))
    await world.archive(TWO, export=export, end=head)
    assert await world.found() == [("forked", TWO, 2)]
    assert "the archive holds another event there" in str((await world.verify()).findings[0])


@pytest.mark.rule("EV-25", "EV-32")
async def test_story_that_lost_its_end_on_its_way_to_the_archive_is_rolled_back(world: World) -> None:
    events = (await world.log.read(TWO))[:1]
    export = export_stream(events, {events[0].command_id: (1, 1)})
    await world.archive(TWO, export=export, end=Head(1, events[0].hash))
    assert await world.found() == [("rolled back", TWO, 2)]


@pytest.mark.rule("EV-25", "EV-32")
async def test_every_tombstone_of_a_story_is_looked_at(world: World) -> None:
    await world.append(ONE, b"anew")
    second = await world.archive(ONE)
    assert (await world.verify()).archives == 2
    world.blobs.swapped[world.digest] = ArtifactNotFound("no such blob")
    world.blobs.swapped[second] = b"[]"
    assert {verdict for verdict, _, _ in await world.found()} >= {"missing", "altered"}


async def test_store_of_blobs_that_is_away_is_not_taken_for_tampering(world: World) -> None:
    world.blobs.swapped[world.digest] = StoreUnavailable("the disk is not mounted")
    with pytest.raises(StoreUnavailable, match="not mounted"):
        await world.verify()


@pytest.mark.rule("EV-32")
async def test_event_of_an_archived_story_can_be_proven_from_its_archive(world: World) -> None:
    for version, body in ((2, b"2"), (6, b"6")):
        proof = await world.auditor().proof(ONE, version=version)
        assert check_proof(proof, SIGNER.ring, Ed25519Verifier().check).entry.fields["b"] == body
    world.blobs.swapped[world.digest] = b"{}"
    with pytest.raises(LogCorrupted, match="altered: story:st-one"):
        await world.auditor().proof(ONE, version=2)
    await world.log.erase(TWO, expected=await world.log.head(TWO))
    with pytest.raises(LogCorrupted, match="does not hold any more"):
        await world.auditor().proof(TWO, version=1)
