"""F6: the log comes back without its newest bytes. What went back below a witness is refused, exactly that."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fleet.audit.files.ed25519 import Ed25519Verifier, KeyFile
from fleet.audit.files.witness import CheckpointFolder
from fleet.audit.finding import Verdict
from fleet.audit.redis import RedisCheckpointStore, RedisRawLog
from fleet.audit.service.notary import Notary
from fleet.events.envelope import Head, StoredEvent
from fleet.graph.service.projector import Projector
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import LogRegressed
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryDeadLetters
from fleet.log.redis.feed import RedisFeedGroup
from fleet.log.redis.log import RedisEventLog
from tests.support.chaos_servers import append_only_file, connected, crash, log_store, restarted_on
from tests.support.chaos_stories import StoryWriter, story_name
from tests.support.oracle import check, epochs_never_fall, rebuilt, stream_verifies
from tests.support.stores import append_request

pytestmark = pytest.mark.timeout(600)

STORIES = 8
Events = Mapping[StreamId, list[StoredEvent]]


@dataclass(frozen=True)
class Written:
    """A log that was killed: what it held, what a checkpoint attests of it, and how far a graph had read it."""

    directory: Path
    events: Events
    attested: Mapping[StreamId, Head]
    projected: Events


def _notary(client: Redis, folder: Path, *, key: Path) -> Notary:
    return Notary(
        RedisEventLog(client),
        RedisRawLog(client),
        RedisCheckpointStore(client),
        CheckpointFolder(folder),
        signer=KeyFile(key),
        verifier=Ed25519Verifier(),
        clock=SystemClock(),
    )


async def _heads(log: RedisEventLog) -> dict[StreamId, Head]:
    return {stream: await log.head(stream) for stream in await log.streams()}


async def _written(root: Path) -> Written:
    """Eight stories; half-way a checkpoint was signed, after three quarters the graph had read everything."""
    async with log_store(root / "log") as server, connected(server.url) as client:
        log = RedisEventLog(client)
        writers = [StoryWriter(log, story_name("cut")) for _ in range(STORIES)]
        draw = random.Random(6)

        async def write(commands: int) -> None:
            for _ in range(commands):
                await draw.choice(writers).write(events=draw.randint(1, 3))

        await write(120)
        await _notary(client, root / "checkpoints", key=root / "notary.key").checkpoint()
        attested = await _heads(log)
        await write(60)
        projected = {stream: await log.read(stream) for stream in await log.streams()}
        await write(60)
        events = {stream: await log.read(stream) for stream in await log.streams()}
        await crash(server)
    return Written(root / "log", events, attested, projected)


@pytest.mark.parametrize("cuts", [6, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.rule("EV-19", "EV-32", "GR-6")
async def test_log_that_lost_its_tail_refuses_exactly_the_streams_below_a_witness(tmp_path: Path, cuts: int) -> None:
    written = await _written(tmp_path)
    size = append_only_file(written.directory).stat().st_size
    draw = random.Random(60)
    lost, regressed = 0, 0
    for number in range(cuts):
        # The first cuts are spread over the whole file; others fall in its last part, as real ones do.
        cut_at = size * (number + 1) // (cuts + 1) if number % 2 else draw.randrange(size * 6 // 10, size)
        root = tmp_path / f"cut-{number}"
        async with (
            restarted_on(root / "log", copied_from=written.directory, cut_at=cut_at) as server,
            connected(server.url) as client,
        ):
            kept = await _kept(RedisEventLog(client), written)
            lost += sum(len(events) for events in written.events.values()) - sum(map(len, kept.values()))
            regressed += await _refused_then_accepted(client, tmp_path, root, written, kept)
    assert lost >= cuts
    assert regressed >= cuts // 2


async def _kept(log: RedisEventLog, written: Written) -> Events:
    """What is left: of each stream a beginning, with entries, head and commands in agreement."""
    kept: dict[StreamId, list[StoredEvent]] = {}
    for stream, before in written.events.items():
        kept[stream] = await log.read(stream)
        assert kept[stream] == before[: len(kept[stream])]
        stream_verifies(stream, kept[stream], await log.head(stream))
        epochs_never_fall(stream, kept[stream])
        last = max((last for _, last in (await log.commands(stream)).values()), default=0)
        assert last == len(kept[stream])
    assert set(await log.streams()) == {stream for stream, events in kept.items() if events}
    return kept


async def _refused_then_accepted(client: Redis, root: Path, own: Path, written: Written, kept: Events) -> int:
    """Both witnesses find what went back, and writes to it are refused until the loss is accepted. How many did."""
    log = RedisEventLog(client)
    signed = {stream for stream, head in written.attested.items() if len(kept[stream]) < head.version}
    read = {stream for stream, events in written.projected.items() if len(kept[stream]) < len(events)}

    shutil.copytree(root / "checkpoints", own / "checkpoints")
    found = (await _notary(client, own / "checkpoints", key=root / "notary.key").checkpoint()).findings
    assert {StreamId(finding.subject) for finding in found} == signed
    assert {finding.verdict for finding in found} <= {Verdict.ROLLED_BACK, Verdict.DELETED}
    assert set(await log.refused()) == signed

    graph = await rebuilt(written.projected)
    projector = Projector(log, graph, feed=RedisFeedGroup(client), letters=MemoryDeadLetters(), clock=SystemClock())
    await projector.sweep()
    assert set(await log.refused()) == set(await graph.held()) == signed | read

    for stream, events in kept.items():
        request = append_request(stream, await log.head(stream), command_id=f"{stream.entity}/after")
        if stream in signed | read:
            with pytest.raises(LogRegressed):
                await log.append(request)
            assert await log.read(stream) == events
            await log.accept_loss(stream)
    answered = [bool(await StoryWriter(log).write()) for _ in range(3)]
    while await projector.rebuild_step():
        pass
    await projector.sweep()
    await check(
        log,
        acknowledged=[event for events in kept.values() for event in events],
        graph=graph,
        healed=False,
        endpoints={"append": answered},
    )
    return len(signed | read)
