"""`fleet submit`: one story on a Ray cluster, as a Ray job, with its log and the exit codes of `fleet run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.cli.output import Output
from fleet.cli.parameters import Budget, Delegates, Goal, NoFetch, Rigor, roles_of
from fleet.kernel.errors import InvalidInput


def submit_command(
    output: Output,
    story_file: Annotated[Path | None, typer.Argument(help="Story as YAML.", metavar="STORY.yaml")] = None,
    repo: Annotated[str, typer.Option(help="Repository, by its path on the nodes of the cluster.")] = "",
    address: Annotated[str | None, typer.Option(help="Ray dashboard: http://HOST:8265. Else RAY_ADDRESS.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Token of Ray. Else RAY_AUTH_TOKEN.")] = None,
    goal: Goal = None,
    model: Annotated[str | None, typer.Option(help="Model profile, or recorded:DIR of the cluster.")] = None,
    rigor: Rigor = None,
    yes: Delegates = "",
    no_fetch: NoFetch = False,
    limits: Budget = "",
    principal: Annotated[str | None, typer.Option("--as", help="user:NAME as the cluster knows you.")] = None,
    python: Annotated[str | None, typer.Option(help="Python of the cluster's images.")] = None,
) -> int:
    """Run one story on a cluster as a Ray job, and follow it; exit codes as of `fleet run`."""
    from fleet.cli.cluster.submit_job import SubmitOptions, submit_story
    from fleet.cli.cluster.submit_plan import SubmittedPlan
    from fleet.cli.local.local_principals import local_principal
    from fleet.cli.models.budget import parse_limits
    from fleet.cli.settings import settings
    from fleet.cli.story.story_file import read_story
    from fleet.kernel.ids import Principal
    from fleet.story.delegation import check_delegates

    if not repo:
        raise InvalidInput("name the repository with --repo, by its path on the nodes of the cluster", field="repo")
    parse_limits(limits)
    delegate = roles_of(yes)
    check_delegates(delegate)
    plan = SubmittedPlan(
        story=read_story(story_file, goal, rigor=rigor),
        repo=repo,
        principal=Principal(principal) if principal else local_principal(),
        model=model,
        delegate=delegate,
        limits=limits,
        fetches=not no_fetch,
    )
    return submit_story(settings(), SubmitOptions(plan, address, token_file, python), output)
