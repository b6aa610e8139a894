"""A log store and a graph of their own for one benchmark, and streams of ordinary events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from cluster.local.arcadedb import ArcadeDb
from cluster.local.valkey import StoreKind, Valkey
from fleet.events.codec import encode
from fleet.events.envelope import Head, NewEvent
from fleet.events.story import QuestionAnswered, QuestionRaised
from fleet.graph.neo4j.graph import Neo4jGraph
from fleet.kernel.ids import CommandId, EntityId, Principal, StreamId
from fleet.log.port import Appended, AppendRequest, EventLog

ACTOR = Principal("user:bench")


@asynccontextmanager
async def log_store(folder: Path) -> AsyncGenerator[str]:
    """URL of a log store with fsync at every write, gone afterwards."""
    server = Valkey(StoreKind.LOG, folder / "log")
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


@asynccontextmanager
async def graph_store(folder: Path) -> AsyncGenerator[Neo4jGraph]:
    """A graph of its own, gone afterwards."""
    server = ArcadeDb(folder / "graph")
    await server.start()
    graph = Neo4jGraph.connect(server.address, user="root", password=server.password, database="neo4j")
    try:
        yield graph
    finally:
        await graph.close()
        await server.stop()


def question(number: int) -> NewEvent:
    """An event of about 300 bytes that changes the graph: a question, then its answer."""
    name = EntityId(f"qu-{number // 2:06d}")
    if number % 2:
        return encode(QuestionAnswered(question_id=name, answer="It is as the story says. " * 4, answered_by=ACTOR))
    return encode(
        QuestionRaised(
            question_id=name,
            kind="question",
            text="What is meant by this line of the story? " * 3,
            severity="normal",
            about={"kind": "story", "id": "st-bench"},  # pyright: ignore[reportArgumentType]
            asked_by=ACTOR,
        )
    )


async def append_one(log: EventLog, stream: StreamId, head: Head, event: NewEvent, *, ts_ms: int) -> Head:
    """The new head after one event."""
    request = AppendRequest(
        stream=stream,
        events=[event],
        expected=head,
        command_id=CommandId(f"{stream}/{head.version + 1}"),
        actor=ACTOR,
        ts_ms=ts_ms,
    )
    outcome = await log.append(request)
    assert isinstance(outcome, Appended)
    return outcome.head
