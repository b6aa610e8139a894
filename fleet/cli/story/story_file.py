"""Story files: the fields of AP-53 as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleet.config.document import parse_document
from fleet.kernel.errors import ConfigError, InvalidInput
from fleet.story.text import parse


def read_story(path: Path | None, goal: str | None, *, rigor: str | None = None) -> dict[str, Any]:
    """The story of a file, or of a one-line goal. InvalidInput names the file and every problem."""
    if (path is None) == (goal is None):
        raise InvalidInput("name either a story file or --goal TEXT")
    data = {"title": goal, "description": goal} if path is None else _document(path)
    if rigor is not None:
        data = {**data, "rigor": rigor}
    try:
        parse(data)
    except InvalidInput as error:
        raise InvalidInput(f"{path or 'the goal'}: {error.message}", **error.details) from error
    return data


def _document(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidInput(f"there is no story file {path}", field="story") from error
    except OSError as error:
        raise InvalidInput(f"cannot read story file {path}: {error.strerror}", field="story") from error
    try:
        return parse_document(raw, file=str(path))
    except ConfigError as error:
        raise InvalidInput(f"{path} is no story: {error.message}", field="story") from error
