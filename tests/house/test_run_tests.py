"""The runner of the default tests: what failed beside others runs again alone, and only then is it judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import run_tests

PASSES = "def test_passes(): pass\n"
FAILS_ONCE = """
from pathlib import Path
def test_fails_once():
    seen = Path("seen")
    runs = len(seen.read_text()) if seen.exists() else 0
    seen.write_text("x" * (runs + 1))
    assert runs not in {bad}
"""
PROJECT = """
[tool.pytest.ini_options]
markers = ["slow: s", "wide: w"]
addopts = "--import-mode=importlib"
[tool.coverage.run]
source = ["."]
parallel = true
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one passing test in each lane."""
    monkeypatch.chdir(tmp_path)
    # That of the run which this one is part of.
    monkeypatch.delenv("COVERAGE_FILE", raising=False)
    # Loading all that is installed takes most of the time of so small a run.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p pytest_cov")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    lanes = {lane: (f"tests/{lane}",) for lane in run_tests.LANES}
    for (folder,) in lanes.values():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "test_it.py").write_text(PASSES)
    monkeypatch.setattr(run_tests, "LANES", lanes)
    monkeypatch.setattr(run_tests, "CHOSEN", {**run_tests.CHOSEN, **lanes})
    return tmp_path


@pytest.mark.parametrize(
    ("bad", "expected", "unstable"),
    [((0,), 0, "tests/stores/test_it.py::test_fails_once\n"), ((0, 2), 1, "")],
    ids=["passes twice alone", "fails in one of the two"],
)
def test_test_that_failed_beside_others_must_pass_twice_alone(
    suite: Path, capfd: pytest.CaptureFixture[str], bad: object, expected: int, unstable: str
) -> None:
    (suite / "tests/stores/test_it.py").write_text(FAILS_ONCE.replace("{bad}", repr(bad)))

    assert run_tests.main([]) == expected
    assert (suite / "build/reports/unstable.txt").read_text() == unstable
    assert ("UNSTABLE" in capfd.readouterr().out) is bool(unstable)


@pytest.mark.parametrize(("bad", "expected"), [((), 0), ((0,), 0), ((0, 2), 1)], ids=["passes", "once", "again"])
@pytest.mark.parametrize("lane", [run_tests.WIDE, run_tests.REAL])
def test_tests_that_drive_programs_and_servers_are_judged_by_the_same_rule(
    suite: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    lane: str,
    bad: object,
    expected: int,
) -> None:
    marked = f"import pytest\npytestmark = pytest.mark.{lane}\n" if lane == run_tests.WIDE else ""
    (suite / "tests/stores/test_wide.py").write_text(marked + FAILS_ONCE.replace("{bad}", repr(bad)))
    (suite / "tests/sim").mkdir()
    (suite / "tests/sim/test_wide.py").write_text("import pytest\npytestmark = pytest.mark.wide\n" + PASSES)
    monkeypatch.setitem(run_tests.CHOSEN, run_tests.REAL, ("tests/stores/test_wide.py",))

    beside = (run_tests.WIDE_SIMULATION,) if lane == run_tests.WIDE else ()
    assert run_tests.run_unmeasured(lane, [], *beside) == expected
    told = capfd.readouterr().out
    assert ("UNSTABLE: failed beside others, passed 2 times alone: tests/stores/test_wide.py" in told) is (bad == (0,))


def test_lane_beside_that_fails_fails_the_run(suite: Path) -> None:
    marked = "import pytest\npytestmark = pytest.mark.wide\n"
    (suite / "tests/sim").mkdir()
    (suite / "tests/stores/test_wide.py").write_text(marked + PASSES)
    (suite / "tests/sim/test_wide.py").write_text(marked + "def test_fails(): assert False\n")

    assert run_tests.run_unmeasured(run_tests.WIDE, [], run_tests.WIDE_SIMULATION) == 1
