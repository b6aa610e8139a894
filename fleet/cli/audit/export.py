"""`fleet export`: trajectories of stories as Parquet, ready for training."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import asdict
from pathlib import Path

from fleet.cli.endpoints import endpoints_of
from fleet.cli.exit_codes import DONE, FAILED
from fleet.cli.output import Output, shown
from fleet.cli.settings import needed_addresses, settings
from fleet.kernel.ids import StoryId
from fleet.report.service.trajectories.export import ExportProgress, ExportSummary
from fleet.report.service.trajectories.rows import TRAJECTORY_SCHEMA
from fleet.wiring.desk.export import open_trajectory_export
from fleet.wiring.endpoints import Endpoints

_PROGRESS_S = 2.0


def export_trajectories(output: Output, folder: Path, chosen: list[str]) -> int:
    """The tables lie in the folder, and what they hold is printed; nothing is left when that fails.

    Of all stories those that cannot be read are named, and the exit code is 4.
    """
    story_ids = [StoryId(story) for story in chosen]
    fleet_settings = settings()
    done = asyncio.run(
        _exported(endpoints_of(fleet_settings, needed_addresses(fleet_settings)), folder, story_ids, output)
    )
    stories = "1 story" if done.stories == 1 else f"{done.stories} stories"
    output.say(f"{shown(folder)} holds {stories} with {done.events} events ({TRAJECTORY_SCHEMA})")
    for name, table in done.tables.items():
        output.say(f"  {name:<14} {table.rows:>8} rows  {table.size_bytes / 1024:>9.1f} KB")
    if done.missing_blobs:
        output.note(f"{done.missing_blobs} texts are no longer stored; their columns are null")
    for story_id, why in done.damaged.items():
        output.note(f"[yellow]warning[/] story {shown(story_id)} is left out: {shown(why)}")
    output.result({"folder": str(folder.resolve()), "schema": TRAJECTORY_SCHEMA, **asdict(done)})
    return FAILED if done.damaged else DONE


async def _exported(endpoints: Endpoints, folder: Path, stories: list[StoryId], output: Output) -> ExportSummary:
    told = time.monotonic()

    def tell(at: ExportProgress) -> None:
        nonlocal told
        if time.monotonic() - told > _PROGRESS_S:
            told = time.monotonic()
            output.note(f"[dim]{shown(f'story {at.number} of {at.stories}: {at.story_id}, {at.events} events')}[/]")

    async with open_trajectory_export(endpoints, folder, environ=os.environ, progress=tell) as export:
        return await export.run(stories)
