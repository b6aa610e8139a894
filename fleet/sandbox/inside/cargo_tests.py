"""Build Rust tests with cargo, run each test program with libtest's JSON, and leave JUnit XML (RC-47, RC-79).

argv: kind (unit, integration, e2e) and the JUnit file. Test targets named `e2e*` and `integ*` are the end-to-end and
integration tests. Stable libtest gives its JSON only with RUSTC_BOOTSTRAP, which is set for the test programs alone,
never for the compiler. Documentation tests and programs with a harness of their own have no such reporter.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from result_files import Case, Unreadable, is_red, json_lines, json_object, number_of, run_tool, text_of, write_junit

NO_TESTS, MISSING = 5, 127
_FAILED = 101
"""Exit code of a test program in which a test failed."""
MESSAGES, EVENTS = Path("out/cargo-build.json"), Path("out/cargo-test.json")
BUILD = ["cargo", "test", "--offline", "--no-run", "--workspace", "--message-format=json"]
_ENDS = {"ok": "passed", "failed": "failed", "timeout": "", "ignored": "skipped"}


@dataclass(frozen=True)
class Program:
    """One test program: where it is, the folder it runs in, and its target's name."""

    path: str
    folder: str
    target: str

    @property
    def kind(self) -> str:
        """Which kind of tests it holds."""
        if self.target.startswith("e2e"):
            return "e2e"
        return "integration" if self.target.startswith("integ") else "unit"


def programs_of(text: str) -> list[Program]:
    """The test programs that cargo's messages name; Unreadable when they do not say that the build succeeded."""
    messages = json_lines(text)
    if not any(m.get("reason") == "build-finished" and m.get("success") is True for m in messages):
        raise Unreadable("cargo does not say that the tests were built")
    return [program for message in messages if (program := _program(message))]


def _program(message: dict[str, Any]) -> Program | None:
    profile, target = message.get("profile"), message.get("target")
    if not isinstance(profile, dict) or not isinstance(target, dict) or not message.get("executable"):
        return None
    if profile.get("test") is not True:  # pyright: ignore[reportUnknownMemberType]
        return None
    folder = str(Path(text_of(message, "manifest_path")).parent)
    return Program(text_of(message, "executable"), folder, text_of(target, "name"))  # pyright: ignore[reportUnknownArgumentType]


def cases_of(text: str, target: str) -> list[Case]:
    """The tests of one program; Unreadable when its counts contradict its tests, or it is cut.

    What code under test writes past the harness stands between the events and counts for nothing.
    """
    cases: list[Case] = []
    expected: int | None = None
    ending: dict[str, Any] = {}
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        event = json_object(line)
        kind, what = event.get("type"), event.get("event")
        if kind == "suite" and what == "started":
            expected = number_of(event, "test_count")
        elif kind == "suite":
            ending = event
        elif kind == "test" and (outcome := _ENDS.get(str(what))):
            message = "" if outcome == "passed" else _message(str(event.get("stdout") or event.get("message") or ""))
            cases.append(Case(text_of(event, "name"), outcome, target, message))
    if expected != len(cases) or not ending or _counts(ending) != _tally(cases):
        raise Unreadable(f"the record of {target} is not complete")
    return cases


def _counts(ending: dict[str, Any]) -> tuple[int, ...]:
    return tuple(number_of(ending, name) for name in ("passed", "failed", "ignored"))


def _tally(cases: list[Case]) -> tuple[int, ...]:
    return tuple(sum(case.outcome == name for case in cases) for name in ("passed", "failed", "skipped"))


def _message(said: str) -> str:
    lines = said.strip().splitlines()
    after = [lines[n + 1] for n, line in enumerate(lines[:-1]) if "panicked at" in line]
    return (after or lines or [""])[0].strip()


def run_program(program: Program) -> tuple[int, list[Case]]:
    """Exit code and tests of one program; one that leaves no record is one errored test."""
    argv = [program.path, "-Z", "unstable-options", "--format", "json"]
    code = run_tool(argv, stdout=EVENTS, cwd=program.folder, env=os.environ | {"RUSTC_BOOTSTRAP": "1"})
    try:
        cases = cases_of(EVENTS.read_text(errors="replace"), program.target)
        if (code == 0) == any(is_red(case) for case in cases):
            raise Unreadable(f"{program.target} ended with {code}, and its record says otherwise")
    except Unreadable as error:
        print(error, file=sys.stderr)
        return code or 1, [Case("(program)", "errored", program.target, f"{error} (exit code {code})")]
    return code, cases


def plant(root: Path) -> tuple[dict[str, str], dict[Path, bytes]]:
    """A test that must fail in each target: target -> its token, and the files as they were."""
    argv = ["cargo", "metadata", "--offline", "--no-deps", "--format-version", "1"]
    try:
        said = json.loads(subprocess.run(argv, cwd=root, capture_output=True, check=True).stdout)
        targets = [
            (str(target["name"]), Path(target["src_path"]))
            for package in said["packages"]
            for target in package["targets"]
            if target.get("test", True) and {"lib", "rlib", "bin", "test", "proc-macro"} & set(target["kind"])
        ]
    except (OSError, ValueError, KeyError, TypeError, subprocess.CalledProcessError):
        return {}, {}
    tokens: dict[str, str] = {}
    texts: dict[Path, bytes] = {}
    for name, path in targets:
        if path in texts or not path.is_file() or path.is_symlink():
            continue
        token = secrets.token_hex(8)
        texts[path], tokens[name.replace("-", "_")] = path.read_bytes(), token
        test = (
            f'\n#[cfg(test)]\nmod x{token} {{\n    #[test]\n    fn fails() {{\n        panic!("{token}");\n    }}\n}}\n'
        )
        path.write_bytes(texts[path] + test.encode())
    return tokens, texts


def _is_planted(path: Path, text: bytes) -> bool:
    try:
        return path.read_bytes().startswith(text + b"\n#[cfg(test)]\nmod x")
    except OSError:
        return False


def without(program: Program, code: int, cases: list[Case], tokens: dict[str, str]) -> tuple[int, list[Case]]:
    """The exit code and the cases without the planted one; an errored one where it did not fail."""
    token = tokens.get(program.target.replace("-", "_"))
    if token is None or any(case.name == "(program)" for case in cases):
        return code, cases
    rest = [case for case in cases if case.name != f"x{token}::fails"]
    if not any(case.name == f"x{token}::fails" and is_red(case) and token in case.message for case in cases):
        why = "a test that must fail did not: its run is not what it says"
        return code or 1, [*rest, Case("(report)", "errored", program.target, why)]
    return (0 if code == _FAILED and not any(is_red(case) for case in rest) else code), rest


def main(argv: list[str]) -> int:
    """Exit with the first failing program's code; 5 when there was no test; cargo's code when they do not build."""
    kind, junit = argv[0], Path(argv[1])
    MESSAGES.parent.mkdir(exist_ok=True)
    tokens, texts = plant(Path.cwd())
    try:
        built = run_tool(BUILD, stdout=MESSAGES)
    finally:
        # A build script may have changed what is compiled after it.
        changed = [path for path, text in texts.items() if not _is_planted(path, text)]
        for path, text in texts.items():
            path.write_bytes(text)
    if built:
        if built != MISSING:
            write_junit(junit, [Case("(build)", "errored", "cargo", "the tests do not build")])
        return built
    try:
        programs = [p for p in programs_of(MESSAGES.read_text(errors="replace")) if p.kind == kind]
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 1
    ran = [without(program, *run_program(program), tokens) for program in programs]
    why = "the build changed this file"
    cases = [case for _, cases_of_one in ran for case in cases_of_one]
    cases += [Case("(build)", "errored", str(path.relative_to(Path.cwd())), why) for path in changed]
    write_junit(junit, cases)
    return next((code for code, _ in ran if code), 1 if changed else 0 if cases else NO_TESTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
