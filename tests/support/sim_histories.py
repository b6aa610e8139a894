"""Histories of simulated runs beside the recorded ones; `python -m tests.support.sim_histories` adds what is missing.

simulated           a whole story that nothing disturbed
troubled            the same under many faults: takeovers, a crash loop, a person who lets it go on
nondeterministic    a story whose recorded step asks for something else than its plan now wants
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fleet.audit.service.stream_export import commands_of, export_stream
from fleet.events.envelope import GENESIS_HASH, StoredEvent, event_hash
from fleet.kernel.digest import canonical_json, digest_of
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.rules import hashed_fields
from tests.support.histories import HISTORIES
from tests.support.sim_world import FULL, Outcome, simulate
from tests.support.simulation import simulated

STORY = StoryId("st-sim1")
TROUBLED_SEED = 58


def _events(outcome: Outcome) -> list[StoredEvent]:
    with simulated("read") as loop:
        return loop.run_until_complete(outcome.stores.log.read(StreamId.of_story(STORY)))


def _undisturbed() -> list[StoredEvent]:
    return _events(simulate("peace", replace(FULL, faults_until_s=0.0)))


def _troubled() -> list[StoredEvent]:
    return _events(simulate(TROUBLED_SEED, FULL))


def _nondeterministic() -> list[StoredEvent]:
    events = _undisturbed()
    first = next(n for n, event in enumerate(events) if event.type == "StepStarted")
    body = json.loads(events[first].body) | {"request_digest": digest_of(b"what an older release asked for")}
    return rehashed([*events[:first], replace(events[first], body=canonical_json(body))])


def rehashed(events: list[StoredEvent]) -> list[StoredEvent]:
    """The events as one chain with right hashes, whatever was changed in them."""
    chained: list[StoredEvent] = []
    for event in events:
        named: dict[str, Any] = hashed_fields(event)
        named["prev_hash"] = chained[-1].hash if chained else GENESIS_HASH
        chained.append(StoredEvent(**named, hash=event_hash(**named)))
    return chained


MADE: dict[str, Callable[[], list[StoredEvent]]] = {
    "simulated": _undisturbed,
    "troubled": _troubled,
    "nondeterministic": _nondeterministic,
}


def main() -> None:
    """Write what is missing; the bytes of a recorded history are never written again."""
    for name, make in MADE.items():
        path = HISTORIES / f"{name}.export"
        if not path.exists():
            events = make()
            path.write_bytes(export_stream(events, commands_of(events)))


if __name__ == "__main__":
    main()
