"""Make the Ray job of a story, or find the one that runs already, and follow it."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.local.record import find_running
from fleet.cli.cluster.submit_client import JobClient, Jobs, read_ray_token
from fleet.cli.cluster.submit_follow import follow
from fleet.cli.cluster.submit_plan import PLAN_FILE, SubmittedPlan
from fleet.cli.output import Output, shown
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import InvalidInput, StoreUnavailable

_MOST_ATTEMPTS = 1_000


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What `fleet submit` was asked for."""

    plan: SubmittedPlan
    address: str | None = None
    token_file: Path | None = None
    python: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    address: str
    token: str
    python: str


def submit_story(settings: FleetSettings, options: SubmitOptions, output: Output) -> int:
    """The story has ended or waits for a person; the exit code says which.

    A job with the same plan that still runs is followed instead of a second one.

    Raises:
        InvalidInput: an address or token of a wrong form.
        StoreUnavailable: nothing answers at the address, or not any more.
        Unauthenticated: Ray wants another token.
    """
    place = _place(settings, options, os.environ)
    client = JobClient(place.address, place.token)
    client.check()
    job_id, is_new = placed_job(client, options.plan, python=place.python)
    words = "" if is_new else " runs already: following it"
    output.note(f"job [bold]{shown(job_id)}[/] at {shown(place.address)}{words}")
    return follow(client, job_id, output)


def placed_job(jobs: Jobs, plan: SubmittedPlan, *, python: str) -> tuple[str, bool]:
    """The id of the job that carries out this plan, and whether this call has made it.

    One that is over is not taken again: the same story can be run a second time.
    """
    job_id, is_new = _job_id(jobs, plan)
    if is_new:
        _submit(jobs, job_id, plan, python)
    return job_id, is_new


def _place(settings: FleetSettings, options: SubmitOptions, environ: Mapping[str, str]) -> _Place:
    named = options.address or environ.get("RAY_API_SERVER_ADDRESS") or environ.get("RAY_ADDRESS")
    if named:
        return _Place(named, read_ray_token(options.token_file, environ), options.python or "python")
    running = find_running(settings.home)
    if running is None or running.addresses.dashboard_url is None:
        raise StoreUnavailable(
            "no cluster is named and no fleet with a dashboard is up here: give --address http://HOST:8265, or start "
            "one with `fleet up --detach`"
        )
    token = read_ray_token(options.token_file or running.addresses.ray_token_path, environ)
    return _Place(running.addresses.dashboard_url, token, options.python or sys.executable)


def _job_id(jobs: Jobs, plan: SubmittedPlan) -> tuple[str, bool]:
    stem = f"fleet-{plan.digest}"
    for attempt in range(1, _MOST_ATTEMPTS):
        job_id = stem if attempt == 1 else f"{stem}-{attempt}"
        state = jobs.state(job_id)
        if state is None or not state.is_over:
            return job_id, state is None
    raise InvalidInput(f"this story was submitted {_MOST_ATTEMPTS - 1} times already", field="story")


def _submit(jobs: Jobs, job_id: str, plan: SubmittedPlan, python: str) -> None:
    with tempfile.TemporaryDirectory(prefix="fleet-submit-") as folder:
        named = plan.model_copy(update={"submission": secrets.token_hex(4)})
        (Path(folder) / PLAN_FILE).write_text(named.model_dump_json())
        metadata = {"story": plan.story["title"], "principal": str(plan.principal)}
        try:
            jobs.submit(job_id, entrypoint=f"{python} -m fleet.cli.submitted", folder=Path(folder), metadata=metadata)
        except StoreUnavailable:
            # Somebody submitted the same plan a moment ago, or the answer was lost on its way.
            if jobs.state(job_id) is None:
                raise
