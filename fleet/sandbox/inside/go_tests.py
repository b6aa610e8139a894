"""Run Go tests with `go test -json` and leave JUnit XML, for unit tests coverage too (RC-47, RC-79).

argv: kind (unit, integration, e2e) and the JUnit file. End-to-end and integration tests are those named `TestE2E*` and
`TestInteg*`; files behind the build tags `e2e` and `integration` are compiled for them.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from result_files import Case, Unreadable, is_red, json_object, run_tool, text_of, write_cobertura, write_junit
from stages import COVERAGE

NO_TESTS, MISSING = 5, 127
EVENTS, PROFILE = Path("out/go-test.json"), Path("out/go-cover.out")
KINDS = {"integration": ("integration", "^TestInteg"), "e2e": ("e2e", "^TestE2E")}
_NOT_BUILT = re.compile(r"FAIL\s+(\S+) \[(?:build|setup) failed\]")
_ENDS = {"pass": "passed", "fail": "failed", "skip": "skipped"}
_BLOCK = re.compile(r"(?P<file>[^:\n]+):(?P<first>\d{1,8})\.\d+,(?P<last>\d{1,8})\.\d+ \d+ (?P<hits>\d{1,18})")
_CONSTRAINT = re.compile(r"^//\s*(?:go:build|\+build)", re.MULTILINE)
_PACKAGE = re.compile(r"^package[ \t]+(\w+)", re.MULTILINE)
_LEFT_OUT = {"vendor", "testdata", "out", "node_modules"}
_NO_CODE = re.compile(r"\s*(?://.*|[{}()\s,;]*)")


@dataclass
class _Test:
    outcome: str = ""
    said: list[str] = field(default_factory=list[str])


def command(kind: str) -> list[str]:
    """The command line of a kind of tests."""
    # Vet is the static stage: what it finds must not keep the tests from running.
    argv = ["go", "test", "-json", "-vet=off"]
    if kind == "unit":
        return [*argv, "-covermode=set", f"-coverprofile={PROFILE}", "-coverpkg=./...", "./..."]
    tag, names = KINDS[kind]
    return [*argv, f"-tags={tag}", "-run", names, "./..."]


def cases_of(text: str, *, kind: str = "unit") -> list[Case]:
    """The tests of an event stream; Unreadable when an event is not of its form.

    A test with subtests counts by itself only when it failed and none of them did. A package that failed without a
    failed test (it did not build, it crashed) is one errored case.
    """
    tests: dict[tuple[str, str], _Test] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("{"):
            # Before Go 1.24 a package that does not build is named outside of the stream: it can only add an error.
            if match := _NOT_BUILT.fullmatch(line.strip()):
                tests[match.group(1), ""] = _Test("failed", ["it did not build"])
            continue
        event = json_object(line, number)
        package = text_of(event, "Package") or text_of(event, "ImportPath").partition(" ")[0]
        test = tests.setdefault((package, text_of(event, "Test")), _Test())
        action = text_of(event, "Action")
        if action == "output":
            test.said.append(text_of(event, "Output"))
        test.outcome = _ENDS.get(action, test.outcome)
    return [case for key, test in tests.items() if (case := _case(key, test, tests)) and _is_of(case, kind)]


def _is_of(case: Case, kind: str) -> bool:
    separate = ("TestE2E", "TestInteg")
    return kind != "unit" or not case.name.startswith(separate)


def _case(key: tuple[str, str], test: _Test, tests: dict[tuple[str, str], _Test]) -> Case | None:
    package, name = key
    inner = [t for (p, n), t in tests.items() if p == package and n and (not name or n.startswith(f"{name}/"))]
    failed = [t for t in inner if t.outcome in ("failed", "")]
    if not name:
        is_told = test.outcome != "failed" or failed
        return None if is_told else Case("(package)", "errored", package, _message(test))
    if inner and (test.outcome == "passed" or failed):
        return None
    return Case(name, test.outcome or "errored", package, "" if test.outcome == "passed" else _message(test))


def _message(test: _Test) -> str:
    lines = [line.strip() for line in "".join(test.said).splitlines()]
    told = [line for line in lines if line and not line.startswith(("===", "---", "FAIL", "exit status", "coverage:"))]
    return told[0] if told else ""


def lines_of(profile: str, *, module: str, root: Path) -> dict[str, dict[int, int]]:
    """Path -> executable line -> hits of a cover profile; files of other modules are left out."""
    first, *blocks = profile.splitlines() or [""]
    if not first.startswith("mode: "):
        raise Unreadable(f"no cover profile: {first[:80]!r}")
    files: dict[str, dict[int, int]] = {}
    for block in blocks:
        if not (match := _BLOCK.fullmatch(block)):
            raise Unreadable(f"no block of a cover profile: {block[:80]!r}")
        name = match["file"].removeprefix(f"{module}/")
        if name == match["file"]:
            continue
        hits = files.setdefault(name, {})
        for line in _code_lines(root / name, int(match["first"]), int(match["last"])):
            hits[line] = max(hits.get(line, 0), int(match["hits"]))
    return files


def _code_lines(path: Path, first: int, last: int) -> list[int]:
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return []
    return [n for n in range(first, min(last, len(lines)) + 1) if not _NO_CODE.fullmatch(lines[n - 1])]


def module_of(root: Path) -> str:
    """The module path that go.mod declares."""
    match = re.search(r"^module[ \t]+\"?([^\s\"]+)", (root / "go.mod").read_text(errors="replace"), re.MULTILINE)
    return match.group(1) if match else ""


@dataclass(frozen=True)
class Canary:
    """A test that must fail, in a file of its own beside the tests of one package."""

    file: Path
    test: str
    token: str


def plant(root: Path) -> list[Canary]:
    """One test of a random name in each package that has tests."""
    planted: list[Canary] = []
    for folder, name in _tested(root):
        token, test = secrets.token_hex(8), f"TestX{secrets.token_hex(6)}"
        file = folder / f"x{secrets.token_hex(6)}x_test.go"
        file.write_text(
            f'package {name}\n\nimport "testing"\n\nfunc {test}(t *testing.T) {{ t.Fatal("{token}") }}\n',
        )
        planted.append(Canary(file, test, token))
    return planted


def _tested(root: Path) -> Iterator[tuple[Path, str]]:
    for place, folders, files in os.walk(root):
        folder = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if name not in _LEFT_OUT and name[0] not in "._" and not (folder / name / "go.mod").exists()
        )
        for file in sorted(files):
            if not file.endswith("_test.go") or file[0] in "._" or (folder / file).is_symlink():
                continue
            text = (folder / file).read_text(errors="replace")
            package = _PACKAGE.search(text)
            if package and not _CONSTRAINT.search(text[: package.start()]):
                yield folder, package.group(1)
                break


def _is_of_folder(package: str, folder: str) -> bool:
    return package.endswith(f"/{folder}") if folder != "." else package == module_of(Path.cwd())


def without(cases: list[Case], planted: list[Canary], root: Path) -> list[Case]:
    """The cases without the planted ones; an errored one for each package whose planted test did not fail."""
    names = {canary.test: canary for canary in planted}
    failed = {
        case.name
        for case in cases
        if case.name in names and case.outcome == "failed" and names[case.name].token in case.message
    }
    rest = [case for case in cases if case.name not in names]
    # A package that does not build, or crashes, says so itself.
    crashed = {case.owner for case in rest if case.name == "(package)"}
    places = {c.test: c.file.parent.relative_to(root).as_posix() for c in planted}
    silent = [
        c
        for c in planted
        if c.test not in failed and not any(_is_of_folder(owner, places[c.test]) for owner in crashed)
    ]
    why = "a test that must fail did not: its run is not what it says"
    return rest + [Case("(report)", "errored", str(c.file.parent.relative_to(root)), why) for c in silent]


def main(argv: list[str]) -> int:
    """Exit with go's code. 5 when there was no test; 1 when go passed and its record does not say so."""
    kind, junit = argv[0], Path(argv[1])
    root = Path.cwd()
    for path in (EVENTS, PROFILE):
        path.unlink(missing_ok=True)
    EVENTS.parent.mkdir(exist_ok=True)
    planted = plant(root) if kind == "unit" else []
    try:
        code = run_tool(command(kind), stdout=EVENTS)
    finally:
        for canary in planted:
            canary.file.unlink(missing_ok=True)
    if code == MISSING:
        return code
    try:
        cases = without(cases_of(EVENTS.read_text(errors="replace"), kind=kind), planted, root)
        if planted and code in (0, 1):
            code = int(any(is_red(case) for case in cases))
        if code == 0 and any(is_red(case) for case in cases):
            raise Unreadable("go passed, and its record holds a failed test")
        if cases or code == 0:
            write_junit(junit, cases)
        if kind == "unit" and PROFILE.is_file():
            write_cobertura(Path(COVERAGE), lines_of(PROFILE.read_text(), module=module_of(root), root=root))
    except (Unreadable, OSError) as error:
        print(f"go test left no result: {error}", file=sys.stderr)
        return code or 1
    return code or (0 if cases else NO_TESTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
