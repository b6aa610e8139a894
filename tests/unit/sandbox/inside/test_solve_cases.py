"""Cases of a solution, as the sandbox runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fleet.cli.models.council_bench import read_tasks
from fleet.sandbox.inside import solve_cases

SCRIPT = Path(solve_cases.__file__)


def run(tmp_path: Path, solution: str, *cases: tuple[str, str], limit_s: float = 10) -> dict[str, Any]:
    """The results of the script in a process of its own."""
    listed = [{"id": str(n), "kind": kind, "code": text} for n, (kind, text) in enumerate(cases)]
    document = {"solution": solution, "setup": "import math", "cases": listed, "limit_s": limit_s}
    (tmp_path / "cases.json").write_text(json.dumps(document))
    argv = [sys.executable, str(SCRIPT), "--cases", str(tmp_path / "cases.json"), "--out", str(tmp_path / "out")]
    subprocess.run(argv, check=True, timeout=60)
    return json.loads((tmp_path / "out" / "cases.json").read_text())


def test_each_case_shows_its_own_outcome(tmp_path: Path):
    found = run(
        tmp_path,
        "def f(x):\n    return {x: math.sqrt(x), 'b': {2, 1}}\n",
        ("test", "assert f(4)[4] == 2"),
        ("test", "assert f(4) == 1"),
        ("test", "from solution import f\nf('a')"),
        ("call", "f(4)"),
        ("call", "f(-1)"),
        ("test", "import os; os._exit(0)"),
    )
    assert [found[str(n)]["outcome"] for n in range(6)] == ["passed", "failed", "error", "passed", "error", "error"]
    assert found["3"]["value"] == "{'b': set(1, 2), 4: 2}"
    assert found["4"]["value"] == "raises ValueError"
    assert found["2"]["message"].endswith("(at solution.py line 2)")


def test_endless_case_ends_alone_and_a_broken_solution_is_said_for_each(tmp_path: Path):
    found = run(tmp_path, "x = 1\n", ("test", "while True: pass"), ("test", "assert x"), limit_s=1)
    assert [r["outcome"] for r in found.values()] == ["timeout", "passed"]
    assert run(tmp_path, "def (", ("test", "pass"))["0"]["outcome"] == "broken"


def test_values_are_shown_equal_when_they_are_equal():
    assert solve_cases.shown({2: 1.0, 1: [None]}) == solve_cases.shown({1: [None], 2: 1.0})
    assert solve_cases.shown(0.1 + 0.2) == solve_cases.shown(0.3)
    assert solve_cases.shown(float("nan")) == "nan"
    assert solve_cases.shown((1, object()))[:12] == "(1, <object "
    assert "0x.." in solve_cases.shown(object())
    deep: list[Any] = []
    deep.append(deep)
    assert solve_cases.shown(deep).endswith("...]]]]]]]]]")


def test_known_solutions_of_our_own_tasks_pass_their_visible_and_hidden_tests():
    tasks = read_tasks(Path(__file__).resolve().parents[4] / "benchmarks" / "solve" / "tasks.yaml")
    assert len(tasks) == 10
    for task in tasks:
        for text in (*task.public.visible, *task.hidden.tests):
            found = solve_cases.run_case({"kind": "test", "code": text}, task.hidden.setup, task.solution)
            assert found["outcome"] == "passed", (task.public.task_id, text, found)
    sys.modules.pop("solution", None)
