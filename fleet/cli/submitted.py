"""What `fleet submit` runs on the cluster, as a Ray job: one story, watched to its end or to a gate.

It asks the fleet that is there and never starts an actor: actors that a job makes keep the environment of that job.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from pydantic import ValidationError

from cluster.local.record import find_running
from fleet.cli.cluster.submit_plan import PLAN_FILE, SubmittedPlan
from fleet.cli.endpoints import endpoints_of
from fleet.cli.models.budget import parse_limits
from fleet.cli.output import Output, guarded, shown
from fleet.cli.story.run import watch_to_end
from fleet.config.environment import load_settings
from fleet.desk.planning import request_key
from fleet.kernel.errors import InvalidInput
from fleet.story.commands.catalogue import parse_command
from fleet.wiring.desk.desk import open_desk
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.places import given_places


def main() -> None:
    """The story has ended or waits. The last line of standard output is its result as JSON, the exit code that of run.

    The result stands in the log of the job, where whoever submitted it reads it.
    """
    output = Output(as_json=True)
    guarded(output, lambda: asyncio.run(_run(_plan(Path(PLAN_FILE)), output)))


def _plan(path: Path) -> SubmittedPlan:
    try:
        return SubmittedPlan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidInput(
            f"{path} is no plan of this version of the fleet; use the same version here and on the cluster: {error}",
            field="plan",
        ) from error


async def _run(plan: SubmittedPlan, output: Output) -> int:
    started, endpoints = time.monotonic(), _endpoints()
    async with open_desk(endpoints) as desk:
        story_id = await desk.story_id_for(plan.story, again=plan.created)
        output.note(f"[bold]{shown(story_id)}[/]: {shown(plan.story['title'])}")
        if await desk.project_of(story_id) is not None:
            output.note("goes on: an earlier run of this job created it")
        else:
            created = await desk.require(
                story_id,
                parse_command("create_story", {"story": plan.story}),
                principal=plan.principal,
                key=plan.create_key,
            )
            output.note(f"readiness score {created['score']}" + ("" if created["dor_ok"] else " (too low to start)"))
        body = {
            **plan.model_dump(mode="json", include={"repo", "model", "delegate", "toolchain", "fetches"}),
            "record": False,
            "budget": parse_limits(plan.limits),
        }
        key = request_key(f"{story_id}/start", body)
        await desk.require(story_id, parse_command("start_story", body), principal=plan.principal, key=key)
        return await watch_to_end(desk, endpoints, story_id, output, after=0, started=started)


def _endpoints() -> Endpoints:
    """The fleet of this machine if one is up here, else the one that the variables of the pod name."""
    settings = load_settings(os.environ)
    running = find_running(settings.home)
    return endpoints_of(settings, running.addresses if running is not None else given_places(settings))


if __name__ == "__main__":
    sys.exit(main())
