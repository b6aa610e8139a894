"""Arguments and options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
StoryArg = Annotated[str, typer.Argument(help="Id of a story.", metavar="STORY")]
Repository = Annotated[str, typer.Option(help="Git repository to work on: a folder, or its https address.")]
Model = Annotated[str | None, typer.Option(help="Model profile, or recorded:DIR.")]
Delegates = Annotated[
    str, typer.Option("--yes", help="Gates that agents may decide: po,qa; council:ROLE has the others.")
]
PythonEnvironment = Annotated[Path | None, typer.Option(help="Python environment of the repository.")]
Budget = Annotated[str, typer.Option("--budget", help="Limits of the story: tokens=N,cost_usd=N,wall_ms=N.")]


def roles_of(delegates: str) -> tuple[str, ...]:
    """The roles that `--yes` names."""
    return tuple(role.strip() for role in delegates.split(",") if role.strip())


def toolchain_of(python: Path | None) -> str:
    """What the work on a story is built and tested with."""
    return f"env:{python.absolute()}" if python else "python"
