"""Given tests run per file and are recorded per test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import load, read_json, write_files

suite_source: Any = load("suite_source")
run_tests: Any = load("run_tests")

MIXED = """
import os, pytest
from pkg.core import one

def test_good(): assert one() == 1
def test_bad(): assert one() == 2, f"got {one()} at {object()}"
def test_undefined(): assert missing_name
@pytest.mark.skip(reason="later")
def test_skipped(): pass
@pytest.fixture
def broken(): raise OSError("no")
def test_setup(broken): pass
@pytest.mark.parametrize("n", [1, 2])
def test_each(n): assert n == 1
class TestGroup:
    def test_in_class(self, tmp_path): raise KeyError(str(tmp_path))
def test_slow():
    while True: pass
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The toolchain has pytest alone; the environment of these tests has plugins.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return write_files(tmp_path / "ws", {"src/pkg/__init__.py": "", "src/pkg/core.py": "def one():\n    return 1\n"})


def run(workspace: Path, *argv: str, **files: str) -> dict[str, Any]:
    inputs = write_files(workspace.parent / "inputs", {f"{name}.py": text for name, text in files.items()})
    options = ("--workspace", str(workspace), "--inputs", str(inputs), "--test-limit", "1", *argv)
    assert run_tests.main(options) == 0
    return {entry["name"]: entry for entry in read_json(workspace / "out" / "tests.json")["files"]}


def test_run_mixed_file_records_every_outcome(workspace: Path) -> None:
    entry = run(workspace, test_mixed=MIXED)["test_mixed.py"]
    tests = {test["id"]: test for test in entry["tests"]}
    assert entry["collected"] is True
    assert {name: test["outcome"] for name, test in tests.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_undefined": "failed",
        "test_skipped": "skipped",
        "test_setup": "error",
        "test_each[1]": "passed",
        "test_each[2]": "failed",
        "TestGroup::test_in_class": "failed",
        "test_slow": "failed",
    }
    assert tests["test_bad"]["exception"] == "AssertionError"
    assert tests["test_bad"]["message"] == "AssertionError: got 1 at <object object at 0x..>"
    assert tests["test_setup"]["exception"] == "OSError"
    assert tests["test_slow"]["exception"] == "TimeoutError"
    assert tests["TestGroup::test_in_class"]["message"] == "KeyError: 'tmp/test_in_class0'"
    assert "assert 1 == 2" in tests["test_bad"]["excerpt"]


def test_run_twice_gives_the_same_bytes(workspace: Path) -> None:
    first = run(workspace, test_mixed=MIXED.split("def test_slow")[0])
    assert run(workspace, test_mixed=MIXED.split("def test_slow")[0]) == first


@pytest.mark.rule("CN-33")
def test_run_file_that_cannot_be_imported_is_not_collected_and_costs_no_other_file(workspace: Path) -> None:
    found = run(workspace, test_a="from pkg.core import nothing\ndef test_x(): pass\n", test_b="def test_y(): pass\n")
    assert found["test_a.py"]["collected"] is False
    assert found["test_a.py"]["reason"].startswith("ImportError: cannot import name 'nothing'")
    assert [(t["id"], t["outcome"]) for t in found["test_a.py"]["tests"]] == [("test_x", "not_collected")]
    assert found["test_b.py"]["tests"][0]["outcome"] == "passed"


def test_run_broken_function_is_dropped_and_the_others_run(workspace: Path) -> None:
    text = "import os\n\ndef test_a():\n    pass\n\ndef test_b():\n    assert (1 ==\n\ndef test_c():\n    assert os\n"
    entry = run(workspace, test_x=text)["test_x.py"]
    outcomes = {test["id"]: test["outcome"] for test in entry["tests"]}
    assert outcomes == {"test_a": "passed", "test_b": "not_collected", "test_c": "passed"}
    assert entry["reason"].startswith("SyntaxError")


def test_run_test_that_ends_the_process_loses_only_its_file(workspace: Path) -> None:
    found = run(workspace, test_exit="import os\ndef test_x(): os._exit(3)\n", test_ok="def test_y(): pass\n")
    assert found["test_exit.py"]["reason"] == "the tests ended their process with exit code 3"
    assert found["test_ok.py"]["collected"] is True


def test_run_files_without_tests_or_text_say_so(workspace: Path) -> None:
    found = run(workspace, test_none="X = 1\n", test_junk="def (\n")
    assert found["test_none.py"]["reason"] == "the file defines no test"
    assert found["test_junk.py"]["reason"].startswith("SyntaxError")
    (workspace.parent / "inputs" / "test_latin.py").write_bytes(b"\xff")
    assert run(workspace)["test_latin.py"]["reason"] == "the file is not UTF-8 text"


def test_run_leaves_nothing_in_the_workspace_but_its_results(workspace: Path) -> None:
    run(workspace, test_a="from pkg.core import one\ndef test_x(): assert one()\n")
    files = {path.relative_to(workspace).as_posix() for path in workspace.rglob("*") if path.is_file()}
    assert files == {"src/pkg/__init__.py", "src/pkg/core.py", "out/tests.json"}


def test_run_without_test_files_exits_2(tmp_path: Path) -> None:
    assert run_tests.main(["--workspace", str(tmp_path), "--inputs", str(tmp_path)]) == 2


def test_normalised_text_names_no_run() -> None:
    text = "at 0x7f00aa in /tmp/tests-x1/test_a.py after 1.25s of 3 seconds"
    assert run_tests.normalised(text) == "at 0x.. in <tmp>/test_a.py after <time> of <time>"


def test_split_tests_lists_functions_and_methods_in_order() -> None:
    text = "def test_a(): ...\nclass TestB:\n    def test_c(self): ...\n    def other(self): ...\n"
    text += "async def test_d(): ...\n"
    assert suite_source.split_tests(text) == ["test_a", "TestB::test_c", "test_d"]


def test_read_suite_keeps_decorators_with_their_function() -> None:
    text = "import pytest\n@pytest.mark.x\n@mark(\n)\ndef test_a(:\n    pass\ndef test_b():\n    pass\n"
    suite = suite_source.read_suite(text)
    assert suite.tests == ("test_b",)
    assert suite.broken == ("test_a",)
    assert "mark" not in suite.text
