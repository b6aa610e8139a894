"""What a clone has to be: no trace of a machine, a lock without hosts, a workflow that parses."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import coverage_gate, longest, run_tests
from scripts.transcript import placed

ROOT = Path(__file__).resolve().parents[2]
# Paths of one machine, and hosts that only an installer's configuration may name. Names that mean nobody are fine.
MACHINE = re.compile(
    r"(?<![\w.])(?:/root/(?!\.)|/work/|/var/tmp/|/home/(?!(?:agent|ann|me)\b)[a-z]+/|/Users/[A-Za-z]+/)"
    r"|\bpypi\.(?:org|python)|pythonhosted"
)
RUN_LOCK, DEV_LOCK = LOCKS = ("requirements.lock", "requirements-dev.lock")
# The second one is the fleet's own installer of packages: it names the public registries.
EXCEPTIONS = frozenset({"tests/house/test_repository.py", "fleet/wiring/sandbox/registries.py"})


def shipped_files() -> list[Path]:
    """Every file that git tracks or would track; in a tree without git, every file of the known folders."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """Its text; empty for a binary file."""
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in shipped_files()
        if str(path.relative_to(ROOT)) not in EXCEPTIONS
        for number, line in enumerate(text_of(path).splitlines(), 1)
        for match in [MACHINE.search(line)]
        if match
    ]

    assert found == []


def test_no_file_is_large() -> None:
    assert [str(p.relative_to(ROOT)) for p in shipped_files() if p.stat().st_size > 2_000_000] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_host_and_has_a_hash_for_every_package(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=\S)", text)[1:]

    assert "://" not in text
    assert not [entry for entry in entries if entry.startswith("-")]
    assert [entry.split(" ")[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_locks_hold_every_dependency_of_the_project() -> None:
    document = _toml("pyproject.toml")

    assert _names(document["project"]["dependencies"]) <= _locked(RUN_LOCK).keys(), "run `make lock`"
    assert _names(document["dependency-groups"]["dev"]) <= _locked(DEV_LOCK).keys(), "run `make lock`"


def test_tests_run_with_what_runs_for_users() -> None:
    """Same versions, same files, on the same systems."""
    tested = _locked(DEV_LOCK)

    assert {name: entry for name, entry in _locked(RUN_LOCK).items() if tested.get(name) != entry} == {}


def test_packages_import_only_what_the_lock_of_users_brings() -> None:
    """Installed are the packages of developers too, so a test would not miss what an image lacks."""
    installed, locked = packages_distributions(), {*_locked(RUN_LOCK), "swe-fleet"}
    lacking = {
        f"{path.relative_to(ROOT)}: {name}"
        for package in _toml("pyproject.toml")["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        for path in (ROOT / package).rglob("*.py")
        for name in imports(path)
        if name in installed and not {_normal(one) for one in installed[name]} & locked
    }

    assert lacking == set()


def imports(path: Path) -> Iterator[str]:
    """The packages that a module names, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name.split(".")[0] for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def _names(requirements: list[str]) -> set[str]:
    return {_normal(re.split(r"[\[<>=! ]", requirement)[0]) for requirement in requirements}


def _locked(lock: str) -> dict[str, str]:
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())[1:]
    return {_normal(entry.split("==")[0]): entry for entry in entries}


def _toml(name: str) -> dict[str, Any]:
    import tomllib

    return tomllib.loads((ROOT / name).read_text())


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_workflow_runs_the_same_command_on_every_supported_version() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["test"]
    supported = re.findall(r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text())

    assert job["strategy"]["matrix"]["python"] == supported
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    # `on` is a boolean in YAML 1.1.
    assert {"push", "pull_request"} <= set(workflow[True])


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"

    assert script.stat().st_mode & 0o111
    assert re.search(r"^make test$", script.read_text(), re.MULTILINE)
    assert "make test" in (ROOT / "README.md").read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.y*ml")), ids=lambda path: path.name)
def test_github_file_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_actions_of_workflows_are_pinned_by_commit() -> None:
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
    used = [use for path in workflows for use in re.findall(r"uses: +(.+)$", path.read_text(), re.MULTILINE)]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}  # v\d+(\.\d+)+", action)] == []


def test_longest_lists_modules_and_functions(capsys: pytest.CaptureFixture[str]) -> None:
    assert longest.main() == 0

    printed = capsys.readouterr().out
    assert re.search(r"^modules: \d+, median \d+ lines\n +\d+  \w+/", printed)
    assert re.search(r"^functions: \d+, median \d+ lines\n +\d+  \w+/\S+:\d+ \w+$", printed, re.MULTILINE)


def _report(**files: tuple[int, int, int, int]) -> dict[str, Any]:
    keys = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    return {"files": {f"fleet/{n}.py": {"summary": dict(zip(keys, v, strict=True))} for n, v in files.items()}}


def test_coverage_gate_asks_more_of_the_core_than_of_the_rest() -> None:
    found = coverage_gate.rows(_report(**{"kernel/errors": (93, 100, 0, 0), "wiring/stage": (93, 100, 0, 0)}))

    assert [(row.package, row.needed, row.is_enough) for row in found if row.package not in coverage_gate.BESIDE] == [
        ("kernel", 95.0, False),
        ("wiring", 90.0, True),
        ("fleet, all of it", 90.0, True),
    ]


def test_coverage_gate_has_a_bar_for_every_package_of_the_wheel() -> None:
    """Also for one of which no test ran anything, and what lies beside `fleet` does not count for `fleet`."""
    shipped = _toml("pyproject.toml")["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    report = _report(**{"kernel/errors": (100, 100, 0, 0)})
    report["files"]["cluster/local/valkey.py"] = {"summary": {**report["files"]["fleet/kernel/errors.py"]["summary"]}}
    found = {row.package: row for row in coverage_gate.rows(report)}

    assert sorted(_toml("pyproject.toml")["tool"]["coverage"]["run"]["source"]) == sorted(shipped)
    assert {"fleet", *coverage_gate.BESIDE} == set(shipped)
    assert (found["cluster"].percent, found["cluster"].is_enough) == (100.0, True)
    assert (found["actors"].percent, found["actors"].is_enough) == (0.0, False)
    assert found["fleet, all of it"].percent == 100.0


def test_files_that_coverage_is_not_asked_of_are_there() -> None:
    assert [path for path in coverage_gate.ELSEWHERE if not (ROOT / path).is_file()] == []


def test_coverage_gate_counts_branches_and_sums_a_package() -> None:
    report = _report(**{"story/plan": (50, 50, 30, 40), "story/state": (10, 10, 0, 0), "log/redis/log": (9, 10, 0, 0)})
    found = {row.package: row for row in coverage_gate.rows(report)}

    assert found["story"].percent == pytest.approx(90.0)
    assert found["story"].branches == pytest.approx(75.0)
    assert found["log.adapters"].percent == pytest.approx(90.0)


def test_transcript_replaces_the_old_one_and_names_no_machine() -> None:
    readme = "a\n<!-- transcript -->\nold\n<!-- /transcript -->\nb\n"

    found = placed(readme, "\x1b[1mdone\x1b[0m /x/repo/report.md \n/y/me/file\n", root="/x/repo", home="/y/me")

    assert found == (
        "a\n<!-- transcript -->\n```text\n$ make demo\ndone report.md\n~/file\n```\n<!-- /transcript -->\nb\n"
    )


@pytest.mark.parametrize(
    ("codes", "is_narrowed", "expected"),
    [([0, 0, 0], False, 0), ([0, 1, 0], False, 1), ([0, 5, 0], False, 5), ([5, 0, 5], True, 0), ([5, 2, 0], True, 2)],
)
def test_tests_pass_only_when_every_process_passed(codes: list[int], is_narrowed: bool, expected: int) -> None:
    assert run_tests.verdict(codes, is_narrowed=is_narrowed) == expected


def test_failed_tests_are_those_that_pytest_noted(tmp_path: Path) -> None:
    assert run_tests.failed_of(tmp_path) == []
    noted = tmp_path / "v/cache/lastfailed"
    noted.parent.mkdir(parents=True)
    noted.write_text('{"tests/b.py::test_b": true, "tests/a.py::test_a": true}')
    assert run_tests.failed_of(tmp_path) == ["tests/a.py::test_a", "tests/b.py::test_b"]


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        ({}, True),
        ({"stores": [f"tests/a.py::test_{n}" for n in range(40)]}, True),
        ({"stores": [f"tests/{n}.py::test_a" for n in range(5)]}, True),
        ({"stores": [f"tests/{n}.py::test_a" for n in range(3)], "fleets": ["x.py::a", "y.py::a", "z.py::a"]}, False),
        ({"stores": ["tests/a.py::test_a"], "fleets": []}, False),
    ],
)
def test_only_a_few_files_of_failed_tests_run_again(failed: dict[str, list[str]], expected: bool) -> None:
    assert run_tests.are_few(failed) is expected
