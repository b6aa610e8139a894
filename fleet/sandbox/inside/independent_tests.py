"""Run given test files of Node, Go or Rust against the workspace and record every test's outcome (CN-32, CN-33, CN-35).

Input `tests.json` of `--inputs`: the language, and files with name, path in the repository, code, and the names of
their tests, which are known before anything runs. Each file runs in processes of its own, under a random name in its
folder, with what is judged in the same process. So it runs twice: as it is, and beside tests that must fail. It counts
where these do fail, the exit status agrees with the record each time, both say the same, and the file stays as it was.
Output `tests.json` in the folder of `--out`, as of `run_tests`. Exit 0 when results were written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cargo_tests
import go_tests
import node_tests
from agent_task import make_folder, remove
from language_stages import language_environment
from processes import adopt, end_children
from result_files import Case, Unreadable, is_red, json_lines
from stages import INSIDE

RUN_LIMIT_S = 280
MESSAGE_CHARS = 300
_MODULE = re.compile(r"^(?:import\b(?!\s*\()|export\b|await\b)", re.MULTILINE)
_OWN_NAME = re.compile(r"\bx[0-9a-f]{12}")
"""The random name of a file, which differs from run to run."""
_TIMED_OUT = 124


class NoRecord(Exception):
    """A run of the file left nothing that counts; says why."""


@dataclass(frozen=True)
class Given:
    """One test file: where it belongs, its text, and its tests."""

    name: str
    path: str
    code: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class FailingTests:
    """Tests that must fail: the text that defines them, and what each of them says, by name."""

    text: str
    said: Mapping[str, str]


@dataclass
class FileRun:
    """What one run of a file came to: the exit status, and how each test ended, as often as it was told."""

    code: int
    ends: dict[str, list[Case]] = field(default_factory=dict[str, list[Case]])

    def add(self, name: str, case: Case) -> None:
        """One more result of the test."""
        self.ends.setdefault(name, []).append(case)

    def outcome(self, name: str) -> str:
        """How the test ended; "" when the run does not tell."""
        ends = [case.outcome for case in self.ends.get(name, ())]
        if any(is_red(case) for case in self.ends.get(name, ())):
            return "failed"
        return "" if not ends else "passed" if "passed" in ends else "skipped"

    def message(self, name: str) -> str:
        """What the test said where it failed."""
        return next((case.message for case in self.ends.get(name, ()) if is_red(case)), "")

    @property
    def is_red(self) -> bool:
        """Whether anything failed."""
        return any(is_red(case) for ends in self.ends.values() for case in ends)


class TestPlace:
    """The workspace, and how programs are run in it.

    Args:
        root: the workspace.
        scratch: a folder for records, outside of the workspace.
        limit_s: seconds that one program may take.
    """

    def __init__(self, root: Path, scratch: Path, language: str, *, limit_s: float) -> None:
        self.root, self.scratch, self._limit_s = root, scratch, limit_s
        # An empty wrapper is none, whatever the project's own settings say.
        none = {"RUSTC_WRAPPER": "", "RUSTC_WORKSPACE_WRAPPER": ""}
        self.env = language_environment(language, root) | os.environ | none

    def run(self, argv: Sequence[str], *, cwd: Path, stdout: Path | None = None, **env: str) -> int:
        """The exit status of a program whose processes have all ended."""
        with (stdout or Path(os.devnull)).open("wb") as sink:
            try:
                child = subprocess.Popen(
                    argv, cwd=cwd, env=self.env | env, stdout=sink, start_new_session=True, stdin=subprocess.DEVNULL
                )
            except OSError as error:
                raise NoRecord(f"{argv[0]}: {error.strerror}") from error
            try:
                code = child.wait(self._limit_s)
            except subprocess.TimeoutExpired:
                code = _TIMED_OUT
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                end_children()
        if code == _TIMED_OUT:
            raise NoRecord(f"the file took longer than {self._limit_s:g} seconds")
        return 128 - code if code < 0 else code

    def folder_of(self, path: str) -> Path:
        """The folder of a file, which is there after this; no link leads out of the workspace."""
        folder = self.root.joinpath(*path.split("/")[:-1])
        if folder.resolve() != folder or (folder.exists() and not folder.is_dir()):
            raise NoRecord(f"{path}: its folder is no folder of the workspace")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NoRecord(f"{path}: its folder cannot be made ({error.strerror})") from error
        return folder

    @contextmanager
    def laid(self, file: Path, text: str) -> Generator[None]:
        """The file is there, as it is given until the end; what changes it has written its own evidence."""
        with file.open("xb") as stream:
            stream.write(text.encode())
        try:
            yield
            if file.is_symlink() or not file.is_file() or file.read_bytes() != text.encode():
                raise NoRecord("the run changed the file of its tests")
        finally:
            with suppress(OSError):
                remove(file)


# Node


_NODE_FORMS = (
    "throw new Error('{said}')",
    "{assert_}(false, '{said}')",
    "{assert_}.ok(false, '{said}')",
    "{assert_}.equal(1, 2, '{said}')",
    "{assert_}.notEqual(1, 1, '{said}')",
    "{assert_}.strictEqual('{said}', 'x', '{said}')",
    "{assert_}.notStrictEqual(1, 1, '{said}')",
    "{assert_}.deepEqual([1], [2], '{said}')",
    "{assert_}.deepStrictEqual([1], [2], '{said}')",
    "{assert_}.notDeepStrictEqual([1], [1], '{said}')",
    "{assert_}.match('a', /b/, '{said}')",
    "{assert_}.throws(() => {{}}, '{said}')",
    "await {assert_}.rejects(Promise.resolve(), '{said}')",
)


_FROZEN = (
    "const assert = require('node:assert');\n"
    "for (const one of [assert, assert.strict, require('node:test')]) Object.freeze(one);\n"
)
"""Loaded before the file: code that tells tests by their names or messages cannot change how they assert either."""


def is_module(given: Given) -> bool:
    """Whether Node reads the file as a module of ECMAScript; its own ending says so, else its text."""
    return not given.path.endswith(".cjs") and (given.path.endswith(".mjs") or bool(_MODULE.search(given.code)))


def must_fail_in_node(given: Given) -> FailingTests:
    """One test for each way of asserting: what makes one of them silent makes its test pass."""
    test, assert_ = f"t{secrets.token_hex(6)}", f"a{secrets.token_hex(6)}"
    if is_module(given):
        head = f"import {{ test as {test} }} from 'node:test';\nimport {assert_} from 'node:assert';\n"
    else:
        head = f"const {{ test: {test} }} = require('node:test');\nconst {assert_} = require('node:assert');\n"
    said = {f"x{secrets.token_hex(6)}": secrets.token_hex(8) for _ in _NODE_FORMS}
    lines = [
        f"{test}('{name}', async () => {{ {form.format(assert_=assert_, said=token)}; }});\n"
        for (name, token), form in zip(said.items(), _NODE_FORMS, strict=True)
    ]
    return FailingTests(f"\n;{head}{''.join(lines)}", said)


def run_node(place: TestPlace, given: Given, text: str) -> FileRun:
    """The file as a run of `node --test` of its own."""
    ending = "mjs" if is_module(given) else "cjs"
    file = place.folder_of(given.path) / f"x{secrets.token_hex(6)}.test.{ending}"
    events, frozen = place.scratch / "node.json", place.scratch / "frozen.cjs"
    remove(events)
    remove(frozen)
    frozen.write_text(_FROZEN)
    to = "--test-reporter-destination="
    argv = ["node", "--require", str(frozen), "--test"]
    argv += [f"--test-reporter={INSIDE / 'node_reporter.mjs'}", f"{to}{events}", str(file)]
    with place.laid(file, text):
        run = FileRun(place.run(argv, cwd=place.root))
    name = file.relative_to(place.root).as_posix()
    for case in node_tests.cases_of(_text_of(events), root=place.root):
        if case.name == "(file)" or case.name == name:
            raise NoRecord(f"the file cannot be run: {case.message}")
        run.add(case.name.partition(" > ")[0], case)
    return run


# Go


def must_fail_in_go(given: Given) -> FailingTests:
    """A test for each of two ways of failing."""
    said = {f"TestX{secrets.token_hex(6)}": secrets.token_hex(8) for _ in range(2)}
    ways = zip(said.items(), ("Fatal", "Error"), strict=True)
    text = "".join(f'func {name}(t *testing.T) {{ t.{way}("{token}") }}\n' for (name, token), way in ways)
    return FailingTests(f"\n{text}", said)


def run_go(place: TestPlace, given: Given, text: str) -> FileRun:
    """The file as the only tests of its package: another file could bring a `TestMain`."""
    folder = place.folder_of(given.path)
    file, events = folder / f"x{secrets.token_hex(6)}_test.go", place.scratch / "go.json"
    remove(events)
    aside = Path(tempfile.mkdtemp(dir=place.scratch))
    others = [path for path in folder.iterdir() if path.name.endswith("_test.go")]
    for path in others:
        shutil.move(path, aside / path.name)
    where = folder.relative_to(place.root).as_posix()
    argv = ["go", "test", "-json", "-vet=off", "-count=1", f"./{where}" if where != "." else "."]
    try:
        with place.laid(file, text):
            run = FileRun(place.run(argv, cwd=place.root, stdout=events))
    finally:
        for path in others:
            shutil.move(aside / path.name, path)
    for case in go_tests.cases_of(_text_of(events)):
        if case.name == "(package)":
            raise NoRecord(f"its package cannot be tested: {case.message}")
        run.add(case.name.partition("/")[0], case)
    return run


# Rust


_RUST_FORMS = (
    'panic!("{said}")',
    'assert!(false, "{said}")',
    'assert_eq!(1, 2, "{said}")',
    'assert_ne!(1, 1, "{said}")',
)


def must_fail_in_rust(given: Given) -> FailingTests:
    """One test for each of the usual macros, in the same module: an import may put others in their place."""
    said = {f"x{secrets.token_hex(6)}": secrets.token_hex(8) for _ in _RUST_FORMS}
    lines = [
        f"#[test]\nfn {name}() {{ {form.format(said=token)}; }}\n"
        for (name, token), form in zip(said.items(), _RUST_FORMS, strict=True)
    ]
    return FailingTests(f"\n{''.join(lines)}", said)


def run_rust(place: TestPlace, given: Given, text: str) -> FileRun:
    """The file as a test target of its own, beside the `Cargo.toml` above its folder."""
    folder = place.folder_of(given.path)
    target, said, events = f"x{secrets.token_hex(6)}", place.scratch / "cargo.json", place.scratch / "rust.json"
    remove(said)
    remove(events)
    build = ["cargo", "test", "--offline", "--no-run", "--message-format=json", "--test", target]
    with place.laid(folder / f"{target}.rs", text):
        built = place.run(build, cwd=folder.parent, stdout=said)
    if built:
        raise NoRecord(f"its tests do not build: {_first_error(_text_of(said))}")
    program = next((p for p in cargo_tests.programs_of(_text_of(said)) if p.target == target), None)
    if program is None:
        raise NoRecord("cargo made no program of its tests")
    argv = [program.path, "-Z", "unstable-options", "--format", "json"]
    run = FileRun(place.run(argv, cwd=folder.parent, stdout=events, RUSTC_BOOTSTRAP="1"))
    for case in cargo_tests.cases_of(_text_of(events), target):
        run.add(case.name, case)
    return run


def _first_error(text: str) -> str:
    with suppress(Unreadable):
        for line in json_lines(text):
            match line:
                case {"message": {"level": "error", "message": str(said)}}:
                    return said[:MESSAGE_CHARS]
                case _:
                    pass
    return "cargo says no reason"


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise NoRecord("the run left no record") from error


_LANGUAGES: dict[str, tuple[Callable[[TestPlace, Given, str], FileRun], Callable[[Given], FailingTests]]] = {
    "node": (run_node, must_fail_in_node),
    "go": (run_go, must_fail_in_go),
    "rust": (run_rust, must_fail_in_rust),
}


def ends_of(place: TestPlace, given: Given, language: str) -> list[dict[str, Any]]:
    """How each of its tests ended; NoRecord when the file cannot be run, or its runs cannot be believed."""
    run, plant = _LANGUAGES[language]
    try:
        alone = run(place, given, given.code)
        if (alone.code == 0) == alone.is_red:
            raise NoRecord(f"the run ended with {alone.code}, and its record says otherwise")
        must = plant(given)
        beside = run(place, given, f"{given.code}{must.text}")
    except Unreadable as error:
        raise NoRecord(f"the run left no record: {error}") from error
    silent = [name for name, said in must.said.items() if said not in beside.message(name)]
    if silent or beside.code == 0:
        raise NoRecord("a test that must fail did not: its run is not what it says")
    return [_record(name, alone, beside) for name in given.tests]


def _record(name: str, alone: FileRun, beside: FileRun) -> dict[str, Any]:
    outcome, message = alone.outcome(name), _OWN_NAME.sub("tests", alone.message(name))[:MESSAGE_CHARS]
    if not outcome:
        outcome, message = "not_collected", "the run does not tell how it ended"
    elif outcome != beside.outcome(name) or (outcome == "passed" and len(alone.ends[name]) != len(beside.ends[name])):
        outcome, message = "error", "it ended otherwise beside tests that must fail"
    return {"id": name, "outcome": outcome, "exception": None, "message": message, "excerpt": ""}


def run_file(place: TestPlace, given: Given, language: str) -> dict[str, Any]:
    """The record of one test file, whatever becomes of its processes."""
    try:
        return {"name": given.name, "collected": True, "reason": "", "tests": ends_of(place, given, language)}
    except NoRecord as error:
        reason = _OWN_NAME.sub("tests", str(error))[:MESSAGE_CHARS]
    lost = {"outcome": "not_collected", "exception": None, "message": reason, "excerpt": ""}
    tests = [{"id": name, **lost} for name in given.tests]
    return {"name": given.name, "collected": False, "reason": reason, "tests": tests}


def main(argv: Sequence[str]) -> int:
    """Run all files of the request, write `tests.json`; exit 2 when the request is none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))
    parser.add_argument("--inputs", type=Path, default=Path("/inputs"))
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--limit", type=float, default=RUN_LIMIT_S)
    options = parser.parse_args(argv)
    root: Path = options.workspace.resolve()
    try:
        request = json.loads((options.inputs / "tests.json").read_text(encoding="utf-8"))
        language = next(name for name in _LANGUAGES if name == request["language"])
        files = [Given(f["name"], f["path"], f["code"], tuple(f["tests"])) for f in request["files"]]
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        print(f"tests.json of the inputs is no request: {error!r}", file=sys.stderr)
        return 2
    adopt()
    # What lies there came with the files: compilers would take it for their own cache.
    remove(root / "out")
    make_folder(root / "out")
    scratch = Path(tempfile.mkdtemp(prefix="tests-"))
    try:
        place = TestPlace(root, scratch, language, limit_s=options.limit)
        document = {"schema": 1, "files": [run_file(place, one, language) for one in files]}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    out: Path = options.out or root / "out"
    make_folder(out)
    remove(out / "tests.json")
    (out / "tests.json").write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
