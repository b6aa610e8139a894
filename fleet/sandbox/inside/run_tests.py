"""Run given pytest files against the workspace and record every test's outcome (CN-32, CN-33, CN-35).

Each file of `--inputs` named `test*.py` runs in a process of its own, from a temporary folder outside the workspace.
Output `tests.json` in the folder of `--out`: per file whether it was collected and why not, per test its id, outcome,
exception type, normalised message and excerpt. Exit 0 when results were written, whatever the tests said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from suite_source import Suite, read_suite

MESSAGE_CHARS = 300
EXCERPT_CHARS = 2000
EXCERPT_LINES = 30
FILE_LIMIT_S = 300


def normalised(text: str, paths: Sequence[tuple[str, str]] = ()) -> str:
    """The text without what differs from run to run: durations, addresses, folders of this run."""
    for path, name in paths:
        text = text.replace(path, name)
    text = re.sub(r"\b0x[0-9a-fA-F]{4,}\b", "0x..", text)
    text = re.sub(r"\b\d+(\.\d+)?\s?(s|ms|seconds)\b", "<time>", text)
    return re.sub(r"/tmp/[\w.+-]+", "<tmp>", text)


class Recorder:
    """A pytest plugin: one record per test, and a limit of seconds on each."""

    def __init__(self, paths: Sequence[tuple[str, str]], limit_s: int) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.collect_error: str | None = None
        self._paths, self._limit_s = paths, limit_s

    def pytest_collectreport(self, report: Any) -> None:
        """Keep why the file cannot be collected."""
        if report.failed and self.collect_error is None:
            self.collect_error = self._reason(str(report.longrepr))

    def _reason(self, text: str) -> str:
        errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
        lines = errors or [line.strip() for line in text.splitlines() if line.strip()]
        return normalised(lines[-1] if lines else "", self._paths)[:MESSAGE_CHARS]

    def pytest_runtest_setup(self, item: Any) -> None:
        """Start the test's clock."""
        signal.signal(signal.SIGALRM, self._over)
        signal.alarm(self._limit_s)

    def pytest_runtest_teardown(self, item: Any) -> None:
        """Stop the test's clock."""
        signal.alarm(0)

    def _over(self, _number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took longer than its limit ({self._limit_s} seconds)")

    def pytest_exception_interact(self, node: Any, call: Any, report: Any) -> None:
        """Keep the class of the exception: reports carry text alone."""
        if report.when == "collect":
            return  # a file that cannot be collected: see pytest_collectreport
        error: BaseException = call.excinfo.value
        message = traceback.format_exception_only(error)
        record = self._record(report)
        record["exception"] = type(error).__name__
        record["message"] = normalised("".join(message).strip().split("\n")[0], self._paths)[:MESSAGE_CHARS]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Fold setup, call and teardown into one outcome: what fails outside the call is `error`."""
        record = self._record(report)
        if report.failed:
            record["outcome"] = "failed" if report.when == "call" else "error"
            text = normalised(report.longreprtext, self._paths)
            record["excerpt"] = "\n".join(text.splitlines()[-EXCERPT_LINES:])[-EXCERPT_CHARS:]
        elif report.skipped and record["outcome"] is None:
            record["outcome"] = "skipped"
        elif report.when == "call" and record["outcome"] is None:
            record["outcome"] = "passed"

    def _record(self, report: Any) -> dict[str, Any]:
        test = report.nodeid.split("::", 1)[-1]
        empty: dict[str, Any] = {"id": test, "outcome": None, "exception": None, "message": "", "excerpt": ""}
        return self.tests.setdefault(test, empty)


def run_one(file: Path, result: Path, workspace: Path, limit_s: int) -> int:
    """Child process: run one file with pytest and write what was recorded."""
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    import pytest

    recorder = Recorder([(str(file.parent) + "/", ""), (str(workspace) + "/", ""), (str(workspace), ".")], limit_s)
    ini = file.parent / "pytest.ini"
    ini.write_text("[pytest]\nmarkers =\n    e2e: end to end\n    integ: integration\n")
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "-c",
        str(ini),
        f"--rootdir={file.parent}",
        f"--basetemp={file.parent / 'tmp'}",
        "--tb=short",
        str(file),
    ]
    code = int(pytest.main(options, plugins=[recorder]))
    document = {"exit_code": code, "collect_error": recorder.collect_error, "tests": list(recorder.tests.values())}
    result.write_text(json.dumps(document))
    return 0


def run_file(source: Path, workspace: Path, limit_s: int) -> dict[str, Any]:
    """The record of one test file, whatever becomes of the process that runs it."""
    try:
        suite = read_suite(source.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        suite = Suite("", (), (), "the file is not UTF-8 text")
    lost = [_not_collected(name, suite.reason) for name in suite.broken]
    if not suite.tests:
        reason = suite.reason or "the file defines no test"
        return {"name": source.name, "collected": False, "reason": reason, "tests": lost}
    folder = Path(tempfile.mkdtemp(prefix="tests-"))
    try:
        found, reason = _run_child(folder / source.name, suite, workspace, limit_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tests = [*found, *lost]
    if reason is None or found:
        seen = {re.split(r"\[", test["id"], maxsplit=1)[0] for test in tests}
        tests += [_not_collected(name, reason or "not run") for name in suite.tests if name not in seen]
        return {"name": source.name, "collected": True, "reason": suite.reason, "tests": tests}
    tests += [_not_collected(name, reason) for name in suite.tests]
    return {"name": source.name, "collected": False, "reason": reason, "tests": tests}


def _run_child(file: Path, suite: Suite, workspace: Path, limit_s: int) -> tuple[list[dict[str, Any]], str | None]:
    """The tests' records, and why there are none or not all."""
    file.write_text(suite.text, encoding="utf-8")
    result = file.parent / "result.json"
    argv = [sys.executable, __file__, "--one", str(file), "--result", str(result), "--workspace", str(workspace)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(workspace), str(workspace / "src")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
    }
    child = subprocess.Popen(
        [*argv, "--test-limit", str(limit_s)], cwd=workspace, env=environment, start_new_session=True
    )
    try:
        child.wait(FILE_LIMIT_S)
    except subprocess.TimeoutExpired:
        return [], f"the file took longer than {FILE_LIMIT_S} seconds"
    finally:
        _kill_group(child)
    try:
        document = json.loads(result.read_bytes()) if child.returncode == 0 else None
    except (OSError, ValueError):
        document = None
    if document is None:
        return [], f"the tests ended their process with exit code {child.returncode}"
    for test in document["tests"]:
        test["outcome"] = test["outcome"] or "error"
    return document["tests"], document["collect_error"]


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _not_collected(name: str, reason: str) -> dict[str, Any]:
    return {"id": name, "outcome": "not_collected", "exception": None, "message": reason, "excerpt": ""}


def test_files(inputs: Path) -> Iterator[Path]:
    """The given test files, by name."""
    return (path for path in sorted(inputs.glob("test*.py")) if path.is_file())


def main(argv: Sequence[str]) -> int:
    """Run all files of `--inputs`, write `tests.json`; exit 2 when there is no file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))
    parser.add_argument("--inputs", type=Path, default=Path("/inputs"))
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--test-limit", type=int, default=20)
    parser.add_argument("--one", type=Path, default=None)
    parser.add_argument("--result", type=Path, default=None)
    options = parser.parse_args(argv)
    workspace: Path = options.workspace.resolve()
    if options.one:
        return run_one(options.one, options.result, workspace, options.test_limit)
    sources = list(test_files(options.inputs))
    if not sources:
        print("no file test*.py among the inputs", file=sys.stderr)
        return 2
    out: Path = options.out or workspace / "out"
    out.mkdir(parents=True, exist_ok=True)
    document = {"schema": 1, "files": [run_file(path, workspace, options.test_limit) for path in sources]}
    (out / "tests.json").write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
