"""`fleet story start`: the work on a story that is there already begins, on the fleet that is up."""

from __future__ import annotations

import time

from fleet.cli.local_principals import local_principal
from fleet.cli.output import Output
from fleet.cli.run import RunOptions, check_start, start_body, watch_to_end
from fleet.cli.settings import settings
from fleet.cli.stories import with_desk
from fleet.ids import StoryId
from fleet.services.planning_desk import PlanningDesk
from fleet.wiring import Endpoints

__all__ = ["start_story"]


def start_story(output: Output, story_id: str, options: RunOptions) -> int:
    """The story runs to its end or to a gate; the exit code says which."""
    check_start(settings(), options)

    async def work(desk: PlanningDesk, endpoints: Endpoints) -> int:
        wanted, started = StoryId(story_id), time.monotonic()
        before = (await desk.state(wanted)).version
        key = f"{story_id}/start/{before}"
        await desk.require(wanted, "start_story", start_body(options), principal=local_principal(), key=key)
        return await watch_to_end(desk, endpoints, wanted, output, after=before, started=started)

    return with_desk(work)
