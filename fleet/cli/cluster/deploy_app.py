"""Commands of the environments."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli.output import Output
from fleet.cli.parameters import Reason, command

app = typer.Typer(help="What runs where this fleet deploys, and its end by hand.", no_args_is_help=True)

EnvironmentArg = Annotated[str, typer.Argument(help="Name of an environment.", metavar="ENVIRONMENT")]
Revision = Annotated[str | None, typer.Option(help="End this one only; the list has it with --json.")]


@command(app, "list")
def deploy_list(output: Output) -> int:
    """List the environments: what runs in each, since when, of which story, and whether it is well."""
    from fleet.cli.cluster.deployments import list_environments

    return list_environments(output)


@command(app, "stop")
def deploy_stop(
    output: Output,
    environment: EnvironmentArg,
    reason: Reason,
    revision: Revision = None,
) -> int:
    """End what runs in an environment; it does not come back."""
    from fleet.cli.cluster.deployments import end_environment

    return end_environment(output, environment, "stop", reason=reason, revision=revision)


@command(app, "rollback")
def deploy_rollback(
    output: Output,
    environment: EnvironmentArg,
    reason: Reason,
    revision: Revision = None,
) -> int:
    """Let what ran in an environment before run again."""
    from fleet.cli.cluster.deployments import end_environment

    return end_environment(output, environment, "rollback", reason=reason, revision=revision)
