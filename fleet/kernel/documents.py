"""Files of the configuration that know their lines, and the one error that says what is wrong in them (GL-22)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from fleet.kernel.errors import ConfigError

WHOLE_FILE = "(whole file)"


class ConfigDocument(dict[str, Any]):
    """The keys and values of a file, which can say on which line a path of them stands."""

    def __init__(self, values: Mapping[str, Any], find_line: Callable[[str], int | None]) -> None:
        """Takes what the file holds.

        Args:
            find_line: the line of a path as `chains.0.engine`, or of what is nearest above it; None for no such key.
        """
        super().__init__(values)
        self.find_line = find_line


class WrongKey(NamedTuple):
    """What is wrong at one place of a file."""

    path: str
    """Keys and numbers of entries, with dots between them."""
    reason: str


class WrongKeys(ValueError):
    """A check over several keys of a model failed; it names the keys, as seen from the model."""

    def __init__(self, problems: Iterable[WrongKey]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.path}: {p.reason}" if p.path else p.reason for p in self.problems))


def problems_of(error: ValidationError) -> list[WrongKey]:
    """Every problem with its path; values are left out, because they may be secret."""
    problems: list[WrongKey] = []
    for item in error.errors(include_url=False, include_input=False):
        above = ".".join(str(part) for part in item["loc"])
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, WrongKeys):
            problems += [
                WrongKey(".".join(filter(None, (above, p.path))) or WHOLE_FILE, p.reason) for p in cause.problems
            ]
        else:
            problems.append(WrongKey(above or WHOLE_FILE, item["msg"].removeprefix("Value error, ")))
    return problems


def wrong_file(file: str, problems: Iterable[WrongKey], document: Mapping[str, Any], **details: object) -> ConfigError:
    """The error that lists all problems of one file, each with its line where the document knows it."""
    find_line = document.find_line if isinstance(document, ConfigDocument) else _no_line
    rows = [(find_line(problem.path), problem) for problem in problems]
    texts = [f"{p.path}: {p.reason}" if line is None else f"line {line}: {p.path}: {p.reason}" for line, p in rows]
    mark = ", " if rows and rows[0][0] is not None else ": "
    return ConfigError(
        f"{file}{mark}{'; '.join(texts)}; correct the file and start again",
        file=file,
        problems=[p._asdict() if line is None else {**p._asdict(), "line": line} for line, p in rows],
        **details,
    )


def _no_line(_: str) -> None:
    return None
