"""Arguments and options that many commands share."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "StoryArg"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
StoryArg = Annotated[str, typer.Argument(help="Id of a story.", metavar="STORY")]
