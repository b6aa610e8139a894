"""Run Go tests with `go test -json` and leave JUnit XML, for unit tests coverage too (RC-47, RC-79).

argv: kind (unit, integration, e2e) and the JUnit file. End-to-end and integration tests are those named `TestE2E*` and
`TestInteg*`; files behind the build tags `e2e` and `integration` are compiled for them.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from result_files import Case, Unreadable, is_red, json_object, run_tool, text_of, write_cobertura, write_junit
from stages import COVERAGE

NO_TESTS = 5
EVENTS, PROFILE = Path("out/go-test.json"), Path("out/go-cover.out")
KINDS = {"integration": ("integration", "^TestInteg"), "e2e": ("e2e", "^TestE2E")}
_NOT_BUILT = re.compile(r"FAIL\s+(\S+) \[(?:build|setup) failed\]")
_ENDS = {"pass": "passed", "fail": "failed", "skip": "skipped"}
_BLOCK = re.compile(r"(?P<file>[^:\n]+):(?P<first>\d{1,8})\.\d+,(?P<last>\d{1,8})\.\d+ \d+ (?P<hits>\d{1,18})")
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
            if found := _NOT_BUILT.fullmatch(line.strip()):
                tests[found.group(1), ""] = _Test("failed", ["it did not build"])
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
        if not (found := _BLOCK.fullmatch(block)):
            raise Unreadable(f"no block of a cover profile: {block[:80]!r}")
        name = found["file"].removeprefix(f"{module}/")
        if name == found["file"]:
            continue
        hits = files.setdefault(name, {})
        for line in _code_lines(root / name, int(found["first"]), int(found["last"])):
            hits[line] = max(hits.get(line, 0), int(found["hits"]))
    return files


def _code_lines(path: Path, first: int, last: int) -> list[int]:
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return []
    return [n for n in range(first, min(last, len(lines)) + 1) if not _NO_CODE.fullmatch(lines[n - 1])]


def module_of(root: Path) -> str:
    """The module path that go.mod declares."""
    found = re.search(r"^module[ \t]+\"?([^\s\"]+)", (root / "go.mod").read_text(errors="replace"), re.MULTILINE)
    return found.group(1) if found else ""


def main(argv: list[str]) -> int:
    """Exit with go's code. 5 when there was no test; 1 when go passed and its record does not say so."""
    kind, junit = argv[0], Path(argv[1])
    root = Path.cwd()
    for path in (EVENTS, PROFILE):
        path.unlink(missing_ok=True)
    EVENTS.parent.mkdir(exist_ok=True)
    code = run_tool(command(kind), stdout=EVENTS)
    try:
        cases = cases_of(EVENTS.read_text(errors="replace"), kind=kind)
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
