"""Run given pytest files against the workspace and record every test's outcome (CN-32, CN-33, CN-35).

Each file of `--inputs` named `test*.py` runs in a process of its own, from a temporary folder outside the workspace.
The product is not loaded there: tests call it over a pipe (`product_pipe`). A test that by its own text needs product
and test in one process runs in one as well, and its record counts only beside a test that must fail, and did.
Output `tests.json` in the folder of `--out`: per file whether it was collected and why not, per test its id, outcome,
exception type, normalised message and excerpt. Exit 0 when results were written, whatever the tests said.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pipe_peer import CannotBePiped
from processes import NO_CACHE, adopt, conceal, end_children, read_all
from product_pipe import Product, ProductFinder, start_product
from suite_source import Suite, needs_one_process, read_suite

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
        self.not_piped: set[str] = set()
        """Tests that do what cannot be done over a pipe."""
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
        if type(error) is CannotBePiped:
            self.not_piped.add(record["id"])
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


def run_one(file: Path, result: int, workspace: Path, limit_s: int, *, is_piped: bool) -> int:
    """Child process: run one file with pytest and write what was recorded to the descriptor."""
    stream = os.fdopen(result, "wb")
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    roots = [str(workspace), str(workspace / "src")]
    product: Product | None = None
    if is_piped:
        conceal()
        product = start_product(str(workspace), roots, limit_s=limit_s)
        sys.meta_path.insert(0, ProductFinder(product, str(workspace), roots, lambda _path: False))  # type: ignore[arg-type]
        os.environ["PYTHONPATH"] = os.pathsep.join(roots)
    else:
        sys.path[:0] = roots
    for name in ("product_pipe", "pipe_peer", "stand_ins", "processes", "suite_source"):
        sys.modules.pop(name, None)
    import pytest

    paths = [(str(file.parent) + "/", ""), (str(workspace) + "/", ""), (str(workspace), ".")]
    recorder = Recorder(paths, limit_s + (2 if is_piped else 0))
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
    ended = product.ended() if product is not None else None
    document = {
        "exit_code": code,
        "collect_error": recorder.collect_error,
        "tests": list(recorder.tests.values()),
        "needs_one_process": sorted(recorder.not_piped),
        "product_exit": ended,
    }
    with stream:
        stream.write(json.dumps(document).encode())
    os._exit(0)


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
        ran, reason = _run_child(folder / source.name, suite, workspace, limit_s)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tests = [*ran, *lost]
    if reason is None or ran:
        seen = {re.split(r"\[", test["id"], maxsplit=1)[0] for test in tests}
        tests += [_not_collected(name, reason or "not run") for name in suite.tests if name not in seen]
        return {"name": source.name, "collected": True, "reason": suite.reason, "tests": tests}
    tests += [_not_collected(name, reason) for name in suite.tests]
    return {"name": source.name, "collected": False, "reason": reason, "tests": tests}


def _run_child(file: Path, suite: Suite, workspace: Path, limit_s: int) -> tuple[list[dict[str, Any]], str | None]:
    """The tests' records, and why there are none or not all."""
    file.write_text(suite.text, encoding="utf-8")
    record, reason = _run_in(file, workspace, limit_s, is_piped=True)
    tests: list[dict[str, Any]] = record["tests"] if record is not None else []
    of_text = needs_one_process(suite.text)
    together = {t["id"] for t in tests if _function_of(t["id"]) in of_text or t["id"] in record["needs_one_process"]}  # type: ignore[index]
    if not together:
        return tests, reason
    # The author of the code may have written what this second run says: a test that must fail shows whether it speaks.
    name, one, two = (f"test_{secrets.token_hex(6)}", secrets.token_hex(6), secrets.token_hex(6))
    file.write_text(f"{suite.text}\n\n\ndef {name}():\n    assert {one!r} == {two!r}\n", encoding="utf-8")
    record, _ = _run_in(file, workspace, limit_s, is_piped=False)
    rows = {t["id"]: t for t in record["tests"]} if record is not None else {}
    canary = rows.pop(name, None)
    if canary is None or canary["outcome"] != "failed" or one not in canary["message"] or two not in canary["message"]:
        rows = {}
    lost = "the run that this test needs left no record that can be believed"
    return [rows.get(t["id"], _errored(t["id"], lost)) if t["id"] in together else t for t in tests], reason


def _function_of(test: str) -> str:
    return test.split("[", 1)[0]


def _errored(test: str, message: str) -> dict[str, Any]:
    return {"id": test, "outcome": "error", "exception": None, "message": message, "excerpt": ""}


def _run_in(file: Path, workspace: Path, limit_s: int, *, is_piped: bool) -> tuple[dict[str, Any] | None, str | None]:
    """What a run of the file recorded, None when it left nothing, and why tests are missing."""
    reading, writing = os.pipe()
    argv = [
        sys.executable,
        "-I",
        *NO_CACHE,
        __file__,
        "--one",
        str(file),
        "--result",
        str(writing),
        "--workspace",
        str(workspace),
    ]
    argv += ["--test-limit", str(limit_s), *([] if is_piped else ["--together"])]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    child = subprocess.Popen(argv, cwd=workspace, env=environment, start_new_session=True, pass_fds=(writing,))
    os.close(writing)
    try:
        data = read_all(reading, time.monotonic() + FILE_LIMIT_S)
    finally:
        os.close(reading)
        _kill_group(child)
        end_children()
    if data is None:
        return None, f"the file took longer than {FILE_LIMIT_S} seconds"
    try:
        record = json.loads(data) if child.returncode in (0, -signal.SIGKILL) else None
    except ValueError:
        record = None
    if record is None:
        return None, f"the tests ended their process with exit code {child.returncode}"
    for test in record["tests"]:
        test["outcome"] = test["outcome"] or "error"
    reason = record["collect_error"]
    if reason is not None and record["product_exit"] is not None:
        reason = f"the tests ended their process with exit code {record['product_exit']}"
    return record, reason


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
    parser.add_argument("--result", type=int, default=None)
    parser.add_argument("--together", action="store_true")
    options = parser.parse_args(argv)
    workspace: Path = options.workspace.resolve()
    if options.one:
        return run_one(options.one, options.result, workspace, options.test_limit, is_piped=not options.together)
    sources = list(test_files(options.inputs))
    if not sources:
        print("no file test*.py among the inputs", file=sys.stderr)
        return 2
    out: Path = options.out or workspace / "out"
    adopt()
    document = {"schema": 1, "files": [run_file(path, workspace, options.test_limit) for path in sources]}
    # Nothing that the code under test started is left: what is written now is ours.
    out.mkdir(parents=True, exist_ok=True)
    (out / "tests.json").write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
