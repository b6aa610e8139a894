"""`fleet replay`: what a recorded story comes to, from its events alone."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path

from fleet.audit.service.stream_export import read_export
from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE
from fleet.cli.output import Output
from fleet.cli.settings import needed_addresses, settings
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import InvalidInput, NotFound
from fleet.kernel.ids import StoryId
from fleet.story.lifecycle import FsmConfig
from fleet.story.snapshot import Replayed, replay
from fleet.wiring.desk.desk import open_desk

_PROGRESS_S = 2.0


def replay_story(output: Output, story_id: str | None, *, at: int | None, every: bool, archive: Path | None) -> int:
    """Versions and digests are printed; exit code 0 whenever the history can be read and planned."""
    if (story_id is None) == (archive is None):
        raise InvalidInput("name either a story or, with --from, the file of an exported one", field="story")
    if archive is not None:
        # An exported story comes without its definitions.
        fsm = ConfigFiles(packaged_directory(), settings().config).load("fsm.yaml", FsmConfig)
        events = _exported(archive)
    else:
        events, fsm = asyncio.run(_recorded(StoryId(story_id or "")))
    if at is not None and not 1 <= at <= len(events):
        raise InvalidInput(f"there is no version {at}: the story has versions 1 to {len(events)}", field="at")
    shown = _shown(output, events[:at], fsm, every=every)
    last = shown[-1]
    output.say(f"owes     {', '.join(last.owed) or 'nothing'}")
    output.say(f"state    {last.state_digest}\nplan     {last.plan_digest}")
    output.result({"story_id": str(events[0].stream.entity), "versions": [asdict(entry) for entry in shown]})
    return DONE


def _shown(output: Output, events: list[StoredEvent], fsm: FsmConfig, *, every: bool) -> list[Replayed]:
    told, kept = time.monotonic(), list[Replayed]()
    for entry in replay(events, fsm):
        if every:
            output.say(
                f"{entry.version:>5}  {entry.state_digest.hex[:12]}  {entry.plan_digest.hex[:12]}  {entry.event}"
            )
        elif time.monotonic() - told > _PROGRESS_S:
            told = time.monotonic()
            output.note(f"version {entry.version} of {len(events)}")
        kept = [*kept, entry] if every else [entry]
    last = kept[-1]
    output.say(f"version  {last.version}, state {last.state} ({last.disposition})\nhash     {last.hash}")
    return kept


async def _recorded(story_id: StoryId) -> tuple[list[StoredEvent], FsmConfig]:
    """The events of the story, and the lifecycles that it is worked on under (GL-23)."""
    fleet_settings = settings()
    async with open_desk(endpoints_of(fleet_settings, needed_addresses(fleet_settings))) as desk:
        return await desk.events(story_id), desk.fsm_of(await desk.state(story_id))


def _exported(path: Path) -> list[StoredEvent]:
    try:
        return list(read_export(path.read_bytes()).events)
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
