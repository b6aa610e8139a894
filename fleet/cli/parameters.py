"""Arguments and options that many commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from fleet.cli.output import Output, guarded

Body = TypeVar("Body", bound=Callable[..., int])
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
StoryFile = Annotated[Path, typer.Argument(help="Story as YAML.", metavar="STORY.yaml")]
StoryArg = Annotated[str, typer.Argument(help="Id of a story.", metavar="STORY")]
Repository = Annotated[str, typer.Option(help="Git repository to work on: a folder, or its https address.")]
Model = Annotated[str | None, typer.Option(help="Model profile, or recorded:DIR.")]
Delegates = Annotated[
    str, typer.Option("--yes", help="Gates that agents may decide: po,qa; council:ROLE has the others.")
]
PythonEnvironment = Annotated[Path | None, typer.Option(help="Python environment of the repository.")]
NoFetch = Annotated[bool, typer.Option("--no-fetch", help="Fetch no packages of its lockfile first.")]
Budget = Annotated[str, typer.Option("--budget", help="Limits of the story: tokens=N,cost_usd=N,wall_ms=N.")]

Reason = Annotated[str, typer.Option(help="Why; 10 characters or more.")]
Note = Annotated[str, typer.Option(help="Why.")]
Rigor = Annotated[str | None, typer.Option(help="L0 to L3; replaces that of the file.")]
Goal = Annotated[str | None, typer.Option(help="One line instead of a story file.")]


def command(
    app: typer.Typer, name: str | None = None, *, continued_by: str = "the same command"
) -> Callable[[Body], Body]:
    """Declares a command of the application: its parameters are those of the function, but for the first, and `--json`.

    The function gets where it prints, and returns the exit code. Its errors end in one line, see `guarded`.
    """

    def declare(body: Body) -> Body:
        def run(*, as_json: bool, **given: Any) -> NoReturn:
            output = Output(as_json=as_json)
            guarded(output, lambda: body(output, **given), continued_by=continued_by)

        signature = inspect.signature(body, eval_str=True)
        first, *own = signature.parameters.values()
        assert first.annotation is Output, f"{body.__name__} has to begin with where it prints"
        kind, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
        shown = [
            *(one.replace(kind=kind) for one in own),
            inspect.Parameter("as_json", kind, default=False, annotation=AsJson),
        ]
        run.__signature__ = signature.replace(parameters=shown, return_annotation=empty)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in shown}
        run.__name__, run.__doc__ = body.__name__, body.__doc__
        app.command(name)(run)
        return body

    return declare


def roles_of(delegates: str) -> tuple[str, ...]:
    """The roles that `--yes` names."""
    return tuple(role.strip() for role in delegates.split(",") if role.strip())


def toolchain_of(python: Path | None) -> str:
    """What the work on a story is built and tested with."""
    return f"env:{python.absolute()}" if python else "python"
