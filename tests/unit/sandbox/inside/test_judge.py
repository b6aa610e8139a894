"""The judge of a project's test run, with a real pytest: what it plants, what it believes, what it asks again."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import load, write_files

judge: Any = load("judge")

PRODUCT = "def twice(n):\n    return 2 * n\n"
TESTS = "from shop import twice\n\n\ndef test_twice():\n    assert twice(2) == 4\n"
JUNIT = "out/junit.xml"
OPTIONS = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--tb=short", "--rootdir=."]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return write_files(
        tmp_path / "ws", {"shop.py": PRODUCT, "test_shop.py": TESTS, "out/empty": "", "data.txt": "1", "pytest.ini": ""}
    )


def judge_for(root: Path, **asked: Any) -> Any:
    """The judge of a run whose base has these tests and data."""
    tests = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in ("test_shop.py", "data.txt")}
    request = root.parent / "request.json"
    request.write_text(json.dumps({"tests": tests, "canaries": None, "files": None} | asked))
    return judge.judge_of(root, {"JUDGE": str(request)})


def run(root: Path, *more: str) -> int:
    command = [sys.executable, "-m", "pytest", *OPTIONS, f"--junitxml={JUNIT}", *more]
    env = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=root, env=env, capture_output=True, check=False).returncode


@pytest.mark.rule("RC-80")
def test_base_says_what_can_be_asked_later_and_a_sound_candidate_is_believed(project: Path) -> None:
    assert judge.judge_of(project, {}) is None
    base = judge_for(project)
    base.plant()
    assert "assert" in (project / "test_shop.py").read_text().removeprefix(TESTS)
    assert base.settle(run(project), project / JUNIT) == (0, True)
    assert (project / "test_shop.py").read_text() == TESTS
    assert "test_twice" in (project / JUNIT).read_text()
    assert base.said["canaries"] == {"test_shop.py": "failed"}
    assert base.said["changed"] == []
    base.ask(OPTIONS, spent_s=1, env=os.environ)
    assert [(row["id"], row["outcome"]) for row in base.said["piped"]] == [("test_shop.py::test_twice", "passed")]

    later = judge_for(project, canaries=["test_shop.py", "gone.py"], files={"test_shop.py": 0.1, "gone.py": 1.0})
    later.plant()
    assert later.settle(run(project), project / JUNIT) == (0, True)
    later.ask(OPTIONS, spent_s=1, env=os.environ)
    assert [row["outcome"] for row in later.said["piped"]] == ["passed"]
    assert later.said["late"] == ["gone.py"]


@pytest.mark.rule("RC-80")
def test_product_that_is_wrong_outside_of_its_run_is_seen_and_asked_twice(project: Path) -> None:
    lies = "import sys\n\n\ndef twice(n):\n    return 2 * n if 'pytest' in sys.modules else n\n"
    (project / "shop.py").write_text(lies)
    later = judge_for(project, canaries=["test_shop.py"], files={"test_shop.py": 0.1})
    later.plant()
    assert later.settle(run(project), project / JUNIT) == (0, True)
    later.ask(OPTIONS, spent_s=1, env=os.environ)
    assert [(row["id"], row["outcome"]) for row in later.said["piped"]] == [("test_shop.py::test_twice", "failed")]


@pytest.mark.rule("RC-80")
def test_what_failed_on_the_base_is_not_asked_again_and_costs_little_there(project: Path) -> None:
    (project / "test_shop.py").write_text(
        "import time\n\n\ndef test_hangs():\n    time.sleep(60)\n\n\ndef test_adds():\n    assert 1 + 1 == 2\n"
    )
    base = judge_for(project)
    base.ask(OPTIONS, spent_s=1, env=os.environ)
    assert {row["id"]: row["outcome"] for row in base.said["piped"]} == {
        "test_shop.py::test_hangs": "failed",
        "test_shop.py::test_adds": "passed",
    }
    assert base.said["piped"][0]["s"] < judge._TEST_LIMIT_S - 2
    later = judge_for(project, canaries=[], files={"test_shop.py": 0.1}, passed=["test_shop.py::test_adds"])
    later.ask(OPTIONS, spent_s=1, env=os.environ)
    assert [(row["id"], row["outcome"]) for row in later.said["piped"]] == [("test_shop.py::test_adds", "passed")]


@pytest.mark.rule("RC-80")
@pytest.mark.parametrize(
    ("conftest", "believed"),
    [
        ("import _pytest.python as p\np.Function.runtest = lambda self: None\n", (0, False)),
        (
            "import os\ndef pytest_sessionfinish(session, exitstatus): session.exitstatus = 0\n"
            "def pytest_unconfigure(): os._exit(0)\n",
            (0, False),
        ),
        ("import pathlib\npathlib.Path('data.txt').write_text('2')\n", (0, True)),
    ],
)
def test_run_in_which_a_planted_test_does_not_fail_says_nothing(
    project: Path, conftest: str, believed: tuple[int, bool]
) -> None:
    (project / "conftest.py").write_text(conftest)
    later = judge_for(project, canaries=["test_shop.py"], files={})
    later.plant()
    assert later.settle(run(project), project / JUNIT) == believed
    assert later.said["changed"] == (["data.txt"] if "data" in conftest else [])
    later.ask(OPTIONS, spent_s=1, env=os.environ)
    assert later.said["piped"] == []


def test_failures_of_the_project_stay_and_a_run_without_a_report_is_not_believed(project: Path) -> None:
    (project / "shop.py").write_text("def twice(n):\n    return n\n")
    later = judge_for(project, canaries=["test_shop.py"], files={})
    later.plant()
    assert later.settle(run(project), project / JUNIT) == (1, True)
    (project / JUNIT).unlink()
    later.plant()
    assert later.settle(0, project / JUNIT) == (0, False)
    only = judge_for(project, canaries=["test_shop.py"], files={})
    only.plant()
    # Nothing but the planted test ran: that is a run without tests.
    name = next(
        line
        for line in (project / "test_shop.py").read_text().splitlines()
        if line.startswith("def test_") and "twice" not in line
    )
    assert only.settle(run(project, "-k", name.removeprefix("def ").partition("(")[0]), project / JUNIT) == (5, True)


def test_process_of_the_tests_that_is_lost_or_late_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "test_shop.py").write_text("import os\n\n\ndef test_ends():\n    os._exit(0)\n")
    later = judge_for(project, canaries=[], files={"test_shop.py": 0.1})
    later.ask(OPTIONS, spent_s=1, env=os.environ)
    assert [row["outcome"] for row in later.said["piped"]] == ["lost"]
    (project / "test_shop.py").write_text("import time\n\n\ndef test_waits():\n    time.sleep(60)\n")
    monkeypatch.setattr(judge, "_SLACK_S", 1.0)
    late = judge_for(project, canaries=[], files={"test_shop.py": 0.01})
    late.ask(OPTIONS, spent_s=1, env=os.environ)
    assert [row["outcome"] for row in late.said["piped"]] == ["late"]
