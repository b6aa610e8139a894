"""Run Node's own test runner with our reporter and leave JUnit XML, for unit tests coverage too (RC-47, RC-79).

argv: kind (unit, integration, e2e) and the JUnit file. The test files are those that `node --test` finds by itself; of
them the end-to-end and integration tests lie in a folder `e2e` or `integration`, or are named `*.e2e.*`, `*.integ.*`.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from result_files import (
    Case,
    Unreadable,
    is_red,
    json_lines,
    number_of,
    run_tool,
    text_of,
    write_cobertura,
    write_junit,
)
from stages import COVERAGE, INSIDE

NO_TESTS = 5
EVENTS, LCOV = Path("out/node-test.json"), Path("out/node-cover.info")
SKIPPED = {"node_modules", ".git", "out", "coverage", "test-reports"}
_NAMED = re.compile(r"(?:.+[.\-_]test|test|test-.+)\.[cm]?js")
_CODE = re.compile(r".+\.[cm]?js")
_DATA = re.compile(r"DA:(\d{1,8}),(\d{1,18})(?:,.*)?")


def test_files(root: Path) -> Iterator[Path]:
    """What `node --test` runs by default, relative to the root and sorted."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        here = Path(folder).relative_to(root)
        for name in sorted(names):
            if _NAMED.fullmatch(name) or ("test" in here.parts and _CODE.fullmatch(name)):
                yield here / name


def kind_of(path: Path) -> str:
    """Which kind of tests a file holds."""
    words = {*path.parts[:-1], *path.name.split(".")[1:-1]}
    if "e2e" in words:
        return "e2e"
    return "integration" if words & {"integration", "integ"} else "unit"


_CANARY = """if (process.env.NODE_TEST_CONTEXT) {{
  const {{ test }} = require('node:test');
  const assert = require('node:assert');
  const file = require('node:path').resolve(process.argv[1]);
  test(`{name} ${{file}}`, () => {{ assert.strictEqual('{one}', '{two}', '{one}{two}'); }});
}}
"""


@dataclass(frozen=True)
class MustFail:
    """A test that must fail in the process of each test file: its name, and what it says."""

    name: str
    one: str
    two: str
    file: Path


def plant() -> MustFail:
    """A module that each process of a test file loads first."""
    name, one, two = (secrets.token_hex(6) for _ in range(3))
    file = Path(tempfile.mkdtemp(prefix="node-")) / f"{secrets.token_hex(6)}.cjs"
    file.write_text(_CANARY.format(name=name, one=one, two=two))
    return MustFail(name, one, two, file)


def without(cases: list[Case], canary: MustFail, files: list[Path], root: Path) -> list[Case]:
    """The cases without the planted ones; an errored one for each file whose planted test did not fail."""
    mine = [case for case in cases if f"{canary.name} " in case.name]
    rest = [case for case in cases if case not in mine]
    failed = {
        _relative(case.name.partition(f"{canary.name} ")[2], root)
        for case in mine
        if is_red(case) and f"{canary.one}{canary.two}" in case.message
    }
    # A file that cannot be read, or crashes, says so itself.
    crashed = {case.file for case in rest if case.name == "(file)" and is_red(case)}
    silent = [path for path in map(Path.as_posix, files) if path not in failed | crashed]
    why = "a test that must fail did not: its run is not what it says"
    return rest + [Case("(report)", "errored", "", why, path) for path in silent]


def command(kind: str, files: list[Path], canary: MustFail | None = None) -> list[str]:
    """The command line: our reporter into a file, the readable one into the log, coverage for unit tests."""
    to = "--test-reporter-destination="
    preload = ["--require", str(canary.file)] if canary else []
    argv = ["node", *preload, "--test", f"--test-reporter={INSIDE / 'node_reporter.mjs'}", f"{to}{EVENTS}"]
    argv += ["--test-reporter=spec", f"{to}stdout"]
    if kind == "unit":
        argv += ["--experimental-test-coverage", "--test-reporter=lcov", f"{to}{LCOV}"]
    return [*argv, *(f"./{path.as_posix()}" for path in files)]


def cases_of(text: str, *, root: Path) -> list[Case]:
    """The tests of an event stream; Unreadable when it is cut or an event is not of its form.

    A suite counts by itself only when it failed and none of its tests did; a file without a test is no test.
    """
    *events, end = json_lines(text) or [{}]
    if end.get("type") != "end" or number_of(end, "results") != len(events):
        raise Unreadable("the record is not complete")
    levels: dict[int, list[Case]] = {}
    for event in events:
        nesting = number_of(event, "nesting")
        inner = levels.pop(nesting + 1, [])
        case = _case(event, root)
        cases = [replace(one, name=f"{case.name} > {one.name}") for one in inner]
        is_own = not event.get("suite") and not inner and not _is_empty_file(case, event)
        if is_own or (is_red(case) and not any(is_red(one) for one in inner)):
            cases.append(case)
        levels.setdefault(nesting, []).extend(cases)
    return levels.get(0, [])


def _case(event: dict[str, Any], root: Path) -> Case:
    outcome = text_of(event, "type")
    if outcome not in ("passed", "failed"):
        raise Unreadable(f"no result of a test: {outcome[:80]!r}")
    file, name = _relative(text_of(event, "file"), root), text_of(event, "name")
    is_file = _relative(name, root) == file
    if event.get("skipped") is True:
        outcome = "skipped"
    elif is_file and outcome == "failed":
        outcome = "errored"
    message = "" if outcome == "passed" else text_of(event, "message").strip().split("\n", 1)[0]
    line = None if is_file or event.get("line") is None else number_of(event, "line")
    return Case("(file)" if is_file else name, outcome, "", message, file, line)


def _is_empty_file(case: Case, event: dict[str, Any]) -> bool:
    return case.name == "(file)" and text_of(event, "type") == "passed"


def _relative(path: str, root: Path) -> str:
    return path.removeprefix(f"{root}/").removeprefix("./")


def lines_of(text: str) -> dict[str, dict[int, int]]:
    """Path -> executable line -> hits of an LCOV file."""
    files: dict[str, dict[int, int]] = {}
    hits: dict[int, int] | None = None
    for line in text.splitlines():
        if line.startswith("SF:"):
            hits = files.setdefault(line[3:], {})
        elif line == "end_of_record":
            hits = None
        elif line.startswith("DA:"):
            match = _DATA.fullmatch(line)
            if match is None or hits is None:
                raise Unreadable(f"no line of an LCOV file: {line[:80]!r}")
            hits[int(match.group(1))] = int(match.group(2))
    if hits is not None:
        raise Unreadable("the LCOV file is cut")
    return {path: _code_of(path, lines) for path, lines in files.items()}


def _code_of(path: str, lines: dict[int, int]) -> dict[int, int]:
    """Node names every line of a file: blank ones, comments and lone braces are not executable."""
    try:
        source = Path(path).read_text(errors="replace").split("\n")
    except OSError:
        return {}
    bare = re.compile(r"\s*(?://.*|/?\*.*|[{}()\[\];,\s]*)")
    return {n: count for n, count in lines.items() if 0 < n <= len(source) and not bare.fullmatch(source[n - 1])}


def main(argv: list[str]) -> int:
    """Exit with node's code. 5 when there was no test; 1 when node passed and its record does not say so."""
    kind, junit = argv[0], Path(argv[1])
    root = Path.cwd()
    files = [path for path in test_files(root) if kind_of(path) == kind]
    junit.parent.mkdir(exist_ok=True)
    EVENTS.parent.mkdir(exist_ok=True)
    for path in (EVENTS, LCOV):
        path.unlink(missing_ok=True)
    if not files:
        write_junit(junit, [])
        return NO_TESTS
    canary = plant()
    code = run_tool(command(kind, files, canary))
    try:
        cases = without(cases_of(EVENTS.read_text(errors="replace"), root=root), canary, files, root)
        if code in (0, 1):
            code = int(any(is_red(case) for case in cases))
        if code == 0 and any(is_red(case) for case in cases):
            raise Unreadable("node passed, and its record holds a failed test")
        write_junit(junit, cases)
        if kind == "unit":
            write_cobertura(Path(COVERAGE), lines_of(LCOV.read_text(errors="replace")))
    except (Unreadable, OSError) as error:
        print(f"node --test left no result: {error}", file=sys.stderr)
        return code or 1
    return code or (0 if cases else NO_TESTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
