"""What a story costs, as it was measured in this repository: each figure with the place that it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

__all__ = ["MEASURED", "Measured", "MeasuredFigures"]

_DEMO = "`make demo`: one story of two councils of three, its log, blobs and graph afterwards"
_REPLIES = "examples/demo/replies: 23 calls of that story, recorded from a model of 1.5 billion parameters"


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure, its unit, and where it was measured."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class MeasuredFigures:
    """All figures that the plan takes from measurements and not from its workload."""

    solo_calls: Measured
    """Model calls of a story that no council makes."""
    calls_per_seat: Measured
    """Model calls of a story for each seat of its councils, all councils together."""
    tokens_in: Measured
    """Tokens of a prompt."""
    tokens_out: Measured
    """Tokens of a reply."""
    engine_tokens_out_per_s: Measured
    """Reply tokens a second of one engine with all of its slots at work."""
    engine_tokens_in_per_s: Measured
    """Prompt tokens a second that one engine reads."""
    sandbox_core_s: Measured
    """Seconds of one core that the runs of a story take: tests, merges, git."""
    depth: Measured
    """Calls of a story that wait for one another; the others go on at the same time."""
    events: Measured
    """Events of a story."""
    log_memory_per_event: Measured
    """Bytes in the memory of the log store for each event, keys of commands, ledgers and trails included."""
    log_disk_per_event: Measured
    """Bytes of its file for each event, once the store has rewritten it."""
    commands_per_event: Measured
    """Commands that the log store carries out for each event: appends, reads, leases, the projection."""
    log_commands_per_s: Measured
    """Commands a second that one log store carries out with fsync at every write."""
    blob_bytes: Measured
    """Bytes of blobs of a story: trees, prompts, replies, reports."""
    graph_nodes_per_event: Measured
    """Nodes of the decision graph for each event."""
    graph_relations_per_node: Measured
    """Relations for each node."""
    shard_calls_per_s: Measured
    """Model calls a second that one council shard asks for, records and decides about."""

    def named(self) -> Iterator[tuple[str, Measured]]:
        """Every figure by its name."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)


MEASURED = MeasuredFigures(
    solo_calls=Measured(4, "calls", _REPLIES),
    calls_per_seat=Measured(19 / 3, "calls", _REPLIES),
    tokens_in=Measured(24_286 / 23, "tokens", _REPLIES),
    tokens_out=Measured(3_114 / 23, "tokens", _REPLIES),
    engine_tokens_out_per_s=Measured(15, "1/s", "docs/own-model.md: that model at 4 bits on two cores, without a GPU"),
    engine_tokens_in_per_s=Measured(37.6, "1/s", "that model at 4 bits on two cores, without a GPU"),
    sandbox_core_s=Measured(45, "s", "README.md: a story of 49.8 s whose replies came at once, start included"),
    depth=Measured(10, "calls", "README.md: transcript of `make demo`"),
    events=Measured(198, "events", _DEMO),
    log_memory_per_event=Measured(394_866 / 198, "bytes", _DEMO),
    log_disk_per_event=Measured(184_247 / 198, "bytes", _DEMO),
    commands_per_event=Measured(
        40, "commands", "assumed, not measured: see docs/operations.md for how to measure yours"
    ),
    log_commands_per_s=Measured(2_061, "1/s", "bare XADD of 330 bytes with fsync, one by one, on two cores"),
    blob_bytes=Measured(528_640, "bytes", _DEMO),
    graph_nodes_per_event=Measured(172 / 198, "nodes", _DEMO),
    graph_relations_per_node=Measured(242 / 172, "relations", _DEMO),
    shard_calls_per_s=Measured(
        2_000 / 10.5, "1/s", "`python -m benchmarks deliberation`: 2,000 calls of 100 councils in 10.5 s on two cores"
    ),
)
