"""What a repository says about itself in `.fleet/workspace.toml`: root, commands, side services, preview.

The file is written by whoever works on the repository, so it is bounded and closed: an unknown key is refused by name
and line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from tomllib import loads
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen, Reason
from fleet.policy.preview import Preview
from fleet.policy.runs.spec import ServiceSpec

WORKSPACE_FILE = ".fleet/workspace.toml"
MAX_WORKSPACE_FILE = 64 << 10
"""Bytes."""
_MAX_PROBLEMS = 20
_FOLDER = re.compile(r"\.|[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*(/[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*)*")
_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\s\"'-]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')\s*[.=]")


def _one_line(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise ValueError("must be one line without control characters")
    return text


def _folder(text: str) -> str:
    if not _FOLDER.fullmatch(text) or ".." in text.split("/"):
        raise ValueError('must be a folder of the repository, as "services/api"')
    return text


CommandLine = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_one_line)]
RootFolder = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_folder)]


class ProjectCommands(Frozen):
    """Shell lines that take the place of what the fleet runs by itself; each begins in the repository's root."""

    build: CommandLine | None = None
    test: CommandLine | None = None
    """Leaves `test-reports/junit.xml`, and `coverage/coverage.xml` where it measures coverage."""
    lint: CommandLine | None = None
    """Prints its findings as JSON."""
    static: CommandLine | None = None
    """Prints its findings as JSON."""
    e2e: CommandLine | None = None
    """Leaves `test-reports/e2e.xml`."""


# Source: RG-77.
class NoEndToEnd(Frozen):
    """Says that this product has no page or program, so that no test can go end to end."""

    none: Annotated[Reason, AfterValidator(_one_line)]
    """Why."""


class WorkspaceFile(Frozen):
    """What the file declares; everything may be left out."""

    root: RootFolder = "."
    """Folder with the manifest and the lockfile that the environment of the runs is made from."""
    commands: ProjectCommands = ProjectCommands()
    services: Annotated[tuple[ServiceSpec, ...], Field(max_length=4)] = ()
    """Programs that the tests need beside them, in the network of the run."""
    preview: Preview | None = None
    e2e: NoEndToEnd | None = None

    @model_validator(mode="after")
    def _is_seen_or_not(self) -> Self:
        if self.e2e is not None and (self.commands.e2e is not None or self.preview is not None):
            raise ValueError("e2e.none says that there is nothing to see: take it out, or commands.e2e and preview")
        return self

    @model_validator(mode="after")
    def _services_named_apart(self) -> Self:
        names = [service.name for service in self.services]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"services lists {twice} twice: give each a name of its own")
        return self


def parse_workspace_file(data: bytes) -> WorkspaceFile:
    """What the file declares.

    Raises:
        InvalidInput: the file is no TOML of this form; `problems` names every wrong field with its line, the message
            the first.
    """
    if len(data) > MAX_WORKSPACE_FILE:
        raise InvalidInput(f"{WORKSPACE_FILE} has more than {MAX_WORKSPACE_FILE} bytes: make it shorter", field="file")
    try:
        text = data.decode()
        document = loads(text)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{WORKSPACE_FILE} is not UTF-8: save it as UTF-8", field="file") from error
    except (ValueError, RecursionError) as error:
        why = "too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise InvalidInput(f"{WORKSPACE_FILE} is no TOML: {why}; mend that line", field="file") from error
    try:
        return WorkspaceFile.model_validate(document)
    except ValidationError as error:
        problems = _problems(error, text.splitlines())
        first, more = problems[0], len(problems) - 1
        others = f" (and {more} more)" if more else ""
        line = f", line {first['line']}" if "line" in first else ""
        raise InvalidInput(
            f"{WORKSPACE_FILE}{line}: {first['field']}: {first['message']}{others}; mend it there",
            problems=problems,
        ) from error


def _problems(error: ValidationError, lines: Sequence[str]) -> list[dict[str, str]]:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    problems: list[dict[str, str]] = []
    for one in errors[:_MAX_PROBLEMS]:
        problem = {"field": _place(one["loc"]), "message": _message(one["type"], one["msg"])}
        line = line_of(one["loc"], lines)
        problems.append({**problem, "line": str(line)} if line else problem)
    return problems


def line_of(location: tuple[int | str, ...], lines: Sequence[str]) -> int | None:
    """The line of the key at this place, else of its table; None where no line names either."""
    names = [str(part) for part in location if isinstance(part, str)]
    asked = tuple(part for part in location if part != "")
    best: int | None = None
    most, table, counts = 0, tuple[int | str, ...](), dict[str, int]()
    for number, line in enumerate(lines, 1):
        if header := _HEADER.match(line):
            name = ".".join(part.strip().strip("\"'") for part in header[2].split("."))
            table = _table(name, counts, is_row=header[1] == "[[")
            place = table
        elif key := _KEY.match(line):
            place = (*table, key[1].strip("\"'"))
        else:
            continue
        if len(place) > most and asked[: len(place)] == place:
            best, most = number, len(place)
    return best if names else None


def _table(name: str, counts: dict[str, int], *, is_row: bool) -> tuple[int | str, ...]:
    """Where a table header leads: `[[a.b]]` for the second time is a, b, 1."""
    if is_row:
        counts[name] = counts.get(name, -1) + 1
        for below in [other for other in counts if other.startswith(f"{name}.")]:
            del counts[below]
    place: list[int | str] = []
    parts = name.split(".")
    for number, part in enumerate(parts, 1):
        place.append(part)
        prefix = ".".join(parts[:number])
        if prefix in counts:
            place.append(counts[prefix])
    return tuple(place)


def _place(location: tuple[int | str, ...]) -> str:
    """`preview.pages[2].path`, the third page of the file."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")[:200] or "file"


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such key: see the page Environment of a repository in the documentation"
    return message.removeprefix("Value error, ")


def command_variables(commands: ProjectCommands, language: str) -> Mapping[str, str]:
    """The declared commands by the variables that the stages of the pipeline read (RC-44)."""
    test = {"python": "TEST_CMD", "go": "GO_TEST_CMD", "node": "NODE_TEST_CMD", "rust": "RUST_TEST_CMD"}[language]
    given = {"BUILD_CMD": commands.build, test: commands.test, "LINT_CMD": commands.lint}
    given |= {"STATIC_CMD": commands.static, "E2E_CMD": commands.e2e}
    return {name: line for name, line in given.items() if line is not None}
