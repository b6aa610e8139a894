"""Story files: the fields of AP-53 as YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleet.config.document import parse_document
from fleet.kernel.errors import ConfigError, InvalidInput
from fleet.story.text import parse


def split_argument(text: str | None) -> tuple[Path | None, str | None]:
    """A story file, or one sentence.

    A file is what exists, what ends in .yaml or .yml, and what has a `/` in its first word: a sentence may name paths.

    Raises:
        InvalidInput: one word that is no file, which says nothing to build; several that look like a missing file.
    """
    if text is None or not text.strip():  # as a variable of the shell that is not set
        return None, None
    words = text.split()
    if _exists(text):
        return Path(text), None
    if "/" in words[0] or text.endswith((".yaml", ".yml")):
        if len(words) > 1:
            raise InvalidInput(
                f"there is no story file {text[:200]!r}: give the path of one, or put it behind --goal as a sentence",
                field="story",
            )
        return Path(text), None
    if len(words) == 1:
        raise InvalidInput(
            f"there is no file {text[:80]!r}, and one word says nothing to build: write a sentence in quotation marks, "
            'as in `fleet run "Add a --json option to the report command"`, or name a story file',
            field="story",
        )
    return None, text


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):  # a sentence may be longer than a name can be
        return False


def read_story(path: Path | None, goal: str | None, *, rigor: str | None = None) -> dict[str, Any]:
    """The story of a file, or of a one-line goal. InvalidInput names the file and every problem."""
    if (path is None) == (goal is None):
        raise InvalidInput(
            'say in one sentence what you want, as in `fleet run "Add a --json option to the report command"`, or '
            "name a story file: one of the two"
        )
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
        told = f"there is no story file {path}: give the path of one, or say in words what to build, between quotes"
        raise InvalidInput(told, field="story") from error
    except OSError as error:
        raise InvalidInput(f"cannot read story file {path}: {error.strerror}", field="story") from error
    try:
        return parse_document(raw, file=str(path))
    except ConfigError as error:
        raise InvalidInput(f"{path} is no story: {error.message}", field="story") from error
