"""Commands of the environments."""

from __future__ import annotations

from typing import Annotated

import typer

from fleet.cli.output import Output, guarded
from fleet.cli.parameters import AsJson

app = typer.Typer(help="What runs where this fleet deploys, and its end by hand.", no_args_is_help=True)

EnvironmentArg = Annotated[str, typer.Argument(help="Name of an environment.", metavar="ENVIRONMENT")]
Reason = Annotated[str, typer.Option(help="Why; 10 characters or more.")]
Revision = Annotated[str | None, typer.Option(help="End this one only; the list has it with --json.")]


@app.command("list")
def deploy_list(as_json: AsJson = False) -> None:
    """List the environments: what runs in each, since when, of which story, and whether it is well."""
    from fleet.cli.cluster.deployments import list_environments

    output = Output(as_json=as_json)
    guarded(output, lambda: list_environments(output))


@app.command("stop")
def deploy_stop(
    environment: EnvironmentArg, reason: Reason, revision: Revision = None, as_json: AsJson = False
) -> None:
    """End what runs in an environment; it does not come back."""
    from fleet.cli.cluster.deployments import end_environment

    output = Output(as_json=as_json)
    guarded(output, lambda: end_environment(output, environment, "stop", reason=reason, revision=revision))


@app.command("rollback")
def deploy_rollback(
    environment: EnvironmentArg, reason: Reason, revision: Revision = None, as_json: AsJson = False
) -> None:
    """Let what ran in an environment before run again."""
    from fleet.cli.cluster.deployments import end_environment

    output = Output(as_json=as_json)
    guarded(output, lambda: end_environment(output, environment, "rollback", reason=reason, revision=revision))
