"""Write the result files of a stage: JUnit XML, Cobertura XML, findings as JSON (RC-47).

The drivers of Go, Node and Rust turn what the tools' own machine-readable reporters say into these three forms.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

MESSAGE_CHARS = 300
_TAGS = {"failed": "failure", "errored": "error", "skipped": "skipped"}


class Unreadable(Exception):
    """A tool's output is not of its documented form: there is no result (RC-79)."""


@dataclass(frozen=True)
class Case:
    """One test: `outcome` is passed, failed, errored or skipped; `line` counts from 1."""

    name: str
    outcome: str
    owner: str = ""
    message: str = ""
    file: str = ""
    line: int | None = None


def is_red(case: Case) -> bool:
    """True when the case failed or errored."""
    return case.outcome in ("failed", "errored")


def run_tool(
    argv: Sequence[str],
    *,
    stdout: Path | None = None,
    reads_errors: bool = False,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """The exit code of a tool, as a shell counts: 127 when it is not there, 128 and the signal when it was killed.

    Args:
        stdout: the file that takes its standard output, with `reads_errors` its standard error too.
    """
    with stdout.open("wb") if stdout else contextlib.nullcontext() as sink:
        try:
            errors = subprocess.STDOUT if reads_errors else None
            code = subprocess.run(argv, stdout=sink, stderr=errors, check=False, cwd=cwd, env=env).returncode
        except OSError as error:
            print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
            return 127
    return 128 - code if code < 0 else code


def write_junit(path: Path, cases: Sequence[Case]) -> None:
    """The cases in pytest's xunit1 form: with file, and with the line counted from 0."""
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"tests": str(len(cases))})
    for case in cases:
        names = {"classname": case.owner, "name": case.name, "file": case.file}
        attributes = {key: _printable(value) for key, value in names.items() if value}
        if case.line:
            attributes["line"] = str(case.line - 1)
        element = ElementTree.SubElement(suite, "testcase", attributes)
        if case.outcome in _TAGS:
            message = _printable(case.message[:MESSAGE_CHARS])
            ElementTree.SubElement(element, _TAGS[case.outcome], {"message": message})
    _write(path, root)


def write_cobertura(path: Path, files: Mapping[str, Mapping[int, int]]) -> None:
    """Path -> executable line -> how often it ran."""
    root = ElementTree.Element("coverage")
    classes = ElementTree.SubElement(ElementTree.SubElement(root, "packages"), "classes")
    for name, hits in sorted(files.items()):
        entry = ElementTree.SubElement(classes, "class", {"filename": _printable(name)})
        lines = ElementTree.SubElement(entry, "lines")
        for number, count in sorted(hits.items()):
            ElementTree.SubElement(lines, "line", {"number": str(number), "hits": str(count)})
    _write(path, root)


def write_findings(path: Path, findings: Iterable[Mapping[str, Any]]) -> None:
    """Findings with `filename`, `code`, `message` and `severity`: a part of ruff's JSON form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(findings), indent=1), encoding="utf-8")


def _write(path: Path, root: ElementTree.Element) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join(c if _is_xml(c) else "?" for c in text)


def _is_xml(char: str) -> bool:
    return char in "\t\n" or " " <= char <= "\ud7ff" or (char >= "\ue000" and char not in "\ufffe\uffff")


def json_lines(text: str) -> list[dict[str, Any]]:
    """The objects of NDJSON; Unreadable names the first line that is none."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            rows.append(json_object(line, number))
    return rows


def json_object(line: str, number: int = 0) -> dict[str, Any]:
    """The object of one line."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"line {number} is no JSON: {line[:80]!r}") from error
    if not isinstance(value, dict):
        raise Unreadable(f"line {number} is no object: {line[:80]!r}")
    return value  # pyright: ignore[reportUnknownVariableType]


def text_of(value: dict[str, Any], name: str, default: str = "") -> str:
    """A text field; Unreadable when it holds something else."""
    text = value.get(name, default)
    if not isinstance(text, str):
        raise Unreadable(f"{name} is no text: {str(text)[:80]!r}")
    return text


def number_of(value: dict[str, Any], name: str) -> int:
    """A count of at least 0; Unreadable when it holds something else."""
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise Unreadable(f"{name} is no count: {str(number)[:80]!r}")
    return number
