"""Events for the tests of the decision graph, and the graphs that they are projected to."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import neo4j

from fleet.events.codec import decode, encode
from fleet.events.envelope import GENESIS_HASH, StoredEvent, event_hash
from fleet.events.payload import Payload
from fleet.graph.changes import Cursor
from fleet.graph.effects.table import effects
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.neo4j.graph import Neo4jGraph
from fleet.graph.port import DecisionGraph
from fleet.kernel.ids import CommandId, Principal, StreamId
from tests.support.event_samples import samples
from tests.support.services import Neo4jAddress

T0 = 1_767_323_045_006
_NUMBERS = count(1)
_ACTOR = Principal("system:council")


def fresh() -> str:
    """A part of ids that no other test uses."""
    return f"g{next(_NUMBERS)}"


def stored(
    payload: Payload, *, stream: str, version: int, prev_hash: str = GENESIS_HASH, ts_ms: int | None = None
) -> StoredEvent:
    """The payload as the log would hand it out."""
    new = encode(payload)
    ts = T0 + version if ts_ms is None else ts_ms
    command = CommandId(f"step/{version}")
    hashed = event_hash(
        stream=stream,
        version=version,
        type=new.type,
        schema=new.schema,
        body=new.body,
        ts_ms=ts,
        epoch=1,
        command_id=command,
        actor=_ACTOR,
        causation="",
        prev_hash=prev_hash,
    )
    return StoredEvent(
        stream=StreamId(stream),
        version=version,
        type=new.type,
        schema=new.schema,
        body=new.body,
        ts_ms=ts,
        epoch=1,
        command_id=command,
        actor=_ACTOR,
        causation="",
        prev_hash=prev_hash,
        hash=hashed,
    )


def history(stream: str, payloads: Iterable[Payload]) -> list[StoredEvent]:
    """The payloads as the stream's events from version 1."""
    events: list[StoredEvent] = []
    for version, payload in enumerate(payloads, 1):
        prev = events[-1].hash if events else GENESIS_HASH
        events.append(stored(payload, stream=stream, version=version, prev_hash=prev))
    return events


def renamed(payload: Payload, names: dict[str, str]) -> Payload:
    """The payload with parts of its ids replaced, so that it is about entities of its own."""
    text = payload.model_dump_json(by_alias=True, exclude_none=True)
    for old, new in names.items():
        text = text.replace(old, new)
    return type(payload).model_validate_json(text)


_SHARED = ("ProjectCreated", "ProjectUpdated", "EpicCreated", "EpicUpdated")
_PLATFORM = ("Principal", "Agent", "Config", "Delegation", "Fleet", "CouncilPool", "Access", "Override")


def sample_history(kind: str, part: str = "one") -> list[StoredEvent]:
    """Every sample of the events that a stream of this kind holds, about entities named by `part`.

    Project, epic and principals are the same for every part, so that streams meet in them.
    """
    own = {name: name.replace("-", f"-{part}", 1) for name in _OWN}
    chosen = [
        payload if payload.type in _SHARED else renamed(payload, own)
        for name, payload in samples().items()
        if _kind_of(name) == kind
    ]
    return history(_stream_of(kind, part), chosen)


def _stream_of(kind: str, part: str = "") -> str:
    return {"story": f"story:st-{part}cart7", "project": "project:pr-default", "platform": "platform:main"}[kind]


def shown(name: str) -> Payload:
    """The sample of a type, in the form that changes the graph."""
    payload = samples()[name]
    changed = {"StoryPaused": {"scope": "story"}, "StoryResumed": {"scope": "story"}, "RepairReceived": {"kept": "new"}}
    return payload.model_copy(update=changed.get(name, {}))


def shortest_history(name: str) -> list[StoredEvent]:
    """The stream that ends with an event of this type and shows what it means."""
    first = {"TaskClaimReleased": ["TaskClaimed"]}.get(name, [])
    return history(_stream_of(_kind_of(name)), [shown(one) for one in (*first, name)])


_OWN = [
    "st-cart7",
    "pv-k3v",
    "tk-save1",
    "tk-tests2",
    "de-store",
    "de-base1",
    "ap-scope1",
    "co-pick",
    "cd-aaa1",
    "cd-bbb2",
    "rn-5k2a",
    "in-slow1",
    "rp-final1",
    "qu-days1",
    "dp-one1",
]


def _kind_of(event_type: str) -> str:
    if event_type.startswith(_PLATFORM):
        return "platform"
    return "project" if event_type in _SHARED or event_type.startswith(("Ceremony", "StoryTombstoned")) else "story"


async def project(graph: DecisionGraph, events: Sequence[StoredEvent], *, batch: int = 200) -> None:
    """The events, which continue their stream, are in the graph."""
    for start in range(0, len(events), batch):
        part = events[start : start + batch]
        changes = [change for event in part for change in effects(event, decode(event))]
        expected = Cursor(part[0].version - 1, part[0].prev_hash)
        reached = Cursor(part[-1].version, part[-1].hash)
        assert await graph.apply(part[0].stream, changes, expected=expected, reached=reached)


@asynccontextmanager
async def open_graph(address: Neo4jAddress | None) -> AsyncGenerator[DecisionGraph]:
    """A graph in memory when there is no address."""
    if address is None:
        yield MemoryGraph()
        return
    graph = Neo4jGraph.connect(address.uri, user=address.user, password=address.password, database="neo4j")
    try:
        yield graph
    finally:
        await graph.close()


def empty_graph(address: Neo4jAddress) -> None:
    """The server's database holds no node."""
    auth = (address.user, address.password)
    with neo4j.GraphDatabase.driver(address.uri, auth=auth, initial_retry_delay=0.03) as driver:
        driver.execute_query("MATCH (n) DETACH DELETE n", database_="neo4j")


_GOLDEN = Path(__file__).parents[1] / "golden" / "graph_effects.json"


def golden_graph(
    name: str,
) -> tuple[list[tuple[str, dict[str, Any]]], list[tuple[str, str, str, str, str, dict[str, Any]]]] | None:
    """Nodes and relationships that `shortest_history` leaves in an empty graph; None when the type changes nothing.

    As `graph_digest` takes them. The file was read by a person: it says what each event means in the graph.
    """
    found = json.loads(_GOLDEN.read_text(encoding="utf-8"))[name]
    if found == "none":
        return None
    nodes = [(label, {"id": node_id, **props}) for label, node_id, props in found["nodes"]]
    return nodes, [tuple(relation) for relation in found["relations"]]


def canonical(rows: list[dict[str, object]]) -> str:
    """The rows as text, for comparison between adapters."""
    return json.dumps(rows, sort_keys=True, indent=1)
