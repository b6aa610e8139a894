"""From a workload to engines, stores and shards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fleet.capacity.measured import MEASURED, MeasuredFigures
from fleet.capacity.queueing import mean_wait_s
from fleet.capacity.workload import Workload

__all__ = ["CapacityPlan", "Load", "Share", "plan_capacity"]

_MEMORY_SPARE = 1.5
"""While the store rewrites its file it copies the pages that change, and it must never evict."""
_DISK_SPARE = 3.0
"""The file, what is appended until it has doubled, and the new file while both are there."""
_NODE_BYTES, _RELATION_BYTES = 15 + 8 * 41 + 200, 34 + 2 * 41
"""Records of Neo4j 5: a node with eight properties and a text, a relation with two; its operations manual has them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the stories ask for."""

    calls_per_story: float
    calls_per_s: float
    tokens_per_s: float
    """Prompts and replies together."""
    call_s: float
    """Seconds that one call takes on an engine whose slots are all at work."""
    wait_s: float
    """Mean seconds before an engine takes it."""
    story_s: float
    """Seconds of a story, people's decisions not counted."""
    stories_at_once: float


@dataclass(frozen=True, slots=True)
class Share:
    """How many of a part, and how much of their time they are at work."""

    count: int
    utilisation: float


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """What the fleet needs."""

    load: Load
    engines: Share
    gpus: int
    shards: Share
    sandbox_cores: Share
    log_commands_per_s: float
    log_utilisation: float
    """Of one log store; above the target a fleet of this rate needs a faster disk, since a log is one server."""
    log_memory_bytes: int
    log_disk_bytes: int
    blob_bytes: int
    graph_nodes: int
    graph_relations: int
    graph_bytes: int


def plan_capacity(work: Workload, measured: MeasuredFigures = MEASURED) -> CapacityPlan:
    """The least that holds this work below its targets: utilisation of each part, and the wait for an engine."""
    arriving = _calls_per_story(work, measured) * work.stories_per_hour / 3600
    busy_s = _engine_seconds_per_call(work, measured)
    engines = _engines(work, arriving, busy_s)
    call_s = busy_s * work.engine_slots
    wait_s = _wait_s(work, arriving, call_s, engines)
    kept = work.stories_per_hour * work.hours_per_day * work.kept_days
    events, nodes = kept * measured.events.value, kept * measured.events.value * measured.graph_nodes_per_event.value
    relations = nodes * measured.graph_relations_per_node.value
    commands = work.stories_per_hour / 3600 * measured.events.value * measured.commands_per_event.value
    return CapacityPlan(
        load=_load(work, measured, arriving, call_s, wait_s),
        engines=Share(engines, arriving * busy_s / engines),
        gpus=engines * work.gpus_per_engine,
        shards=_share(arriving / measured.shard_calls_per_s.value, work.target_utilisation),
        sandbox_cores=_share(work.stories_per_hour / 3600 * measured.sandbox_core_s.value, work.target_utilisation),
        log_commands_per_s=commands,
        log_utilisation=commands / measured.log_commands_per_s.value,
        log_memory_bytes=math.ceil(events * measured.log_memory_per_event.value * _MEMORY_SPARE),
        log_disk_bytes=math.ceil(events * measured.log_disk_per_event.value * _DISK_SPARE),
        blob_bytes=math.ceil(kept * measured.blob_bytes.value),
        graph_nodes=math.ceil(nodes),
        graph_relations=math.ceil(relations),
        graph_bytes=math.ceil(nodes * _NODE_BYTES + relations * _RELATION_BYTES),
    )


def _calls_per_story(work: Workload, measured: MeasuredFigures) -> float:
    if work.calls_per_story is not None:
        return work.calls_per_story
    return measured.solo_calls.value + work.council_size * measured.calls_per_seat.value


def _engine_seconds_per_call(work: Workload, measured: MeasuredFigures) -> float:
    """Seconds of a whole engine that one call takes."""
    tokens_in = _given(work.tokens_in, measured.tokens_in.value) * (1 - work.cached_share)
    tokens_out = _given(work.tokens_out, measured.tokens_out.value)
    in_per_s = _given(work.engine_tokens_in_per_s, measured.engine_tokens_in_per_s.value)
    return tokens_in / in_per_s + tokens_out / _given(
        work.engine_tokens_out_per_s, measured.engine_tokens_out_per_s.value
    )


def _engines(work: Workload, arriving: float, busy_s: float) -> int:
    engines = max(1, math.ceil(arriving * busy_s / work.target_utilisation - 1e-9))
    call_s = busy_s * work.engine_slots
    while _wait_s(work, arriving, call_s, engines) > work.wait_share * call_s:
        engines += 1
    return engines


def _wait_s(work: Workload, arriving: float, call_s: float, engines: int) -> float:
    servers = engines * work.engine_slots
    return mean_wait_s(arrivals_per_s=arriving, service_s=call_s, servers=servers, together=work.council_size)


def _load(work: Workload, measured: MeasuredFigures, arriving: float, call_s: float, wait_s: float) -> Load:
    story_s = measured.depth.value * (wait_s + call_s) + measured.sandbox_core_s.value
    tokens = _given(work.tokens_in, measured.tokens_in.value) + _given(work.tokens_out, measured.tokens_out.value)
    return Load(
        calls_per_story=_calls_per_story(work, measured),
        calls_per_s=arriving,
        tokens_per_s=arriving * tokens,
        call_s=call_s,
        wait_s=wait_s,
        story_s=story_s,
        stories_at_once=work.stories_per_hour / 3600 * story_s,
    )


def _share(work: float, target: float) -> Share:
    count = max(1, math.ceil(work / target - 1e-9))
    return Share(count, work / count)


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
