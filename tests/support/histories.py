"""Recorded stories: their bytes as they were exported, and what every version came to when they were recorded.

`python -m tests.support.histories` writes what is missing, and, with `--again`, the digests of what is there. The bytes
of a recorded story are never written again: they are what a user's log may hold.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet.audit.service.stream_export import StreamExport, commands_of, export_stream, read_export
from fleet.events.story import StoryCancelled
from fleet.story.snapshot import replay, state_schema
from tests.support.rules import fsm
from tests.support.story_events import StoryLog, story

HISTORIES = Path(__file__).resolve().parents[1] / "golden" / "histories"


@dataclass(frozen=True)
class History:
    """One recorded story, and per version what it came to then; `schema` names the form of the state's digest."""

    name: str
    export: StreamExport
    schema: str
    versions: tuple[dict[str, Any], ...]


def told(export: StreamExport) -> list[dict[str, Any]]:
    """What every version comes to now, as JSON values."""
    kept = ("version", "state", "disposition", "owed", "plan_digest", "state_digest")
    entries = (asdict(entry) for entry in replay(export.events, fsm()))
    return [json.loads(json.dumps({name: entry[name] for name in kept})) for entry in entries]


def recorded() -> list[History]:
    """Every recorded story."""
    found: list[History] = []
    for path in sorted(HISTORIES.glob("*.export")):
        digests = json.loads(path.with_suffix(".json").read_text())
        export = read_export(path.read_bytes())
        found.append(History(path.stem, export, digests["schema"], tuple(digests["versions"])))
    return found


def _stories() -> dict[str, StoryLog]:
    cancelled = story(until="planned").add(StoryCancelled(reason="nobody wants it any more"))
    return {"delivered": story(), "cancelled": cancelled}


def main(*, again: bool) -> None:
    """Write what is missing."""
    HISTORIES.mkdir(parents=True, exist_ok=True)
    for name, log in _stories().items():
        path = HISTORIES / f"{name}.export"
        if not path.exists():
            path.write_bytes(export_stream(log.events, commands_of(log.events)))
    for path in sorted(HISTORIES.glob("*.export")):
        target = path.with_suffix(".json")
        if again or not target.exists():
            lines = ",\n".join(json.dumps(entry) for entry in told(read_export(path.read_bytes())))
            target.write_text(f'{{"schema": {json.dumps(state_schema())}, "versions": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(again="--again" in sys.argv)
