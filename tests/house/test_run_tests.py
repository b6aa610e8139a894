"""The runner of the default tests: what failed beside others runs again alone, and only then is it judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import run_tests, test_real
from tests.support.services import is_about_a_given_server

PASSES = "def test_passes(): pass\n"
FAILS = "def test_fails(): assert False\n"
FAILS_ONCE = """
from pathlib import Path
def test_fails_once():
    seen = Path("seen")
    runs = len(seen.read_text()) if seen.exists() else 0
    seen.write_text("x" * (runs + 1))
    assert runs not in {bad}
"""
WIDE = "import os, pytest\npytestmark = pytest.mark.wide\n"
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
    """A project with one check that passes, and one passing test in a lane that is measured and in one that is not."""
    monkeypatch.chdir(tmp_path)
    # That of the run which this one is part of.
    monkeypatch.delenv("COVERAGE_FILE", raising=False)
    # Loading all that is installed takes most of the time of so small a run.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "Makefile").write_text("types:\n\t@echo types are fine\n")
    lanes = {lane: (f"tests/{lane}",) for lane in ("stores", "house")}
    for (folder,) in lanes.values():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "test_it.py").write_text(PASSES)
    monkeypatch.setattr(run_tests, "LANES", lanes)
    monkeypatch.setattr(run_tests, "CHECKS", ("types",))
    monkeypatch.setattr(run_tests, "CHOSEN", {**run_tests.CHOSEN, **lanes, run_tests.WIDE: ("tests/house",)})
    monkeypatch.setattr(run_tests, "WIDES", (run_tests.WIDE, run_tests.WIDE_SIMULATION))
    return tmp_path


def test_test_that_failed_beside_others_and_passes_twice_alone_has_passed_and_is_named(
    suite: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (suite / "tests/stores/test_it.py").write_text(FAILS_ONCE.replace("{bad}", "(0,)"))

    assert run_tests.main(["-p", "pytest_cov"], is_traced=True) == 0
    test = "tests/stores/test_it.py::test_fails_once"
    assert (suite / "build/reports/unstable.txt").read_text() == f"{test}\n"
    told = capfd.readouterr().out
    assert f"UNSTABLE: failed beside others, passed 2 times alone: {test}" in told
    assert "types are fine" in told
    assert "FAILED:" not in told
    assert (suite / ".coverage").exists()


def test_test_that_fails_once_alone_has_failed(suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (suite / "tests/stores/test_it.py").write_text(FAILS_ONCE.replace("{bad}", "(0, 2)"))

    assert run_tests.main([]) == 1
    assert (suite / "build/reports/unstable.txt").read_text() == ""
    told = capfd.readouterr().out
    assert "FAILED: stores, see build/reports/stores.log" in told
    assert "UNSTABLE" not in told
    assert not (suite / ".coverage").exists(), "nothing is traced unless that was asked for"


def test_check_that_fails_beside_passing_tests_fails_the_run(suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (suite / "Makefile").write_text("types:\n\t@echo one type is wrong; exit 1\n")

    assert run_tests.main([]) == 2
    told = capfd.readouterr().out
    assert "one type is wrong" in told
    assert "FAILED: types, see build/reports/types.log" in told


def test_folder_that_belongs_to_no_lane_fails_the_run(suite: Path) -> None:
    (suite / "tests/new").mkdir()
    (suite / "tests/new/test_it.py").write_text(PASSES)

    with pytest.raises(AssertionError, match="a folder would not run"):
        run_tests.main([])


def test_only_the_suites_of_the_stores_reach_the_servers_that_were_given(
    suite: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when they run beside the wide tests, and by the same rule for tests that failed beside others."""
    monkeypatch.setenv("FLEET_REDIS_URL", "redis://given/0")
    given = "import os\nassert os.environ['FLEET_REDIS_URL'] == 'redis://given/0'\n"
    (suite / "tests/stores/test_it.py").write_text(given + FAILS_ONCE.replace("{bad}", "(0,)"))
    (suite / "tests/house/test_it.py").write_text(f"{WIDE}assert 'FLEET_REDIS_URL' not in os.environ\n{PASSES}")
    (suite / "tests/sim").mkdir()
    (suite / "tests/sim/test_it.py").write_text(WIDE + PASSES)
    monkeypatch.setitem(run_tests.CHOSEN, run_tests.REAL, ("tests/stores",))

    assert test_real.main(["--wide"]) == 0
    told = capfd.readouterr().out
    assert "UNSTABLE: failed beside others, passed 2 times alone: tests/stores/test_it.py::test_fails_once" in told
    assert [f"... {lane} took " in told for lane in run_tests.WIDES] == [True, True]


@pytest.mark.parametrize("store", ["redis", "memory", "files", "bolt"])
def test_suites_of_the_stores_leave_out_what_reaches_no_server_that_was_given(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """This test is a case of its own subject: the parameter of such a suite says which store it is about."""
    for name in ("REDIS_URL", "NEO4J_URI"):
        monkeypatch.delenv(f"FLEET_TEST_{name}", raising=False)
        monkeypatch.delenv(f"FLEET_{name}", raising=False)
    monkeypatch.setenv("FLEET_TEST_REAL", "1")
    assert not is_about_a_given_server(request.node)
    monkeypatch.setenv("FLEET_REDIS_URL", "redis://given/0")
    assert is_about_a_given_server(request.node) is (store == "redis")
    monkeypatch.setenv("FLEET_NEO4J_URI", "bolt://given")
    assert is_about_a_given_server(request.node) is (store in {"redis", "bolt"})


def test_lane_beside_that_fails_fails_the_run(suite: Path) -> None:
    (suite / "tests/sim").mkdir()
    (suite / "tests/house/test_it.py").write_text(WIDE + PASSES)
    (suite / "tests/sim/test_it.py").write_text(WIDE + FAILS)

    assert run_tests.run_apart(run_tests.WIDES, []) == 1
