"""One supervisor of the sandbox on each node: runs are spread, and outlive nodes and supervisors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.support.processes import processes_below

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(600)


def played(home: Path, redis_url: str, *acts: str) -> dict[str, Any]:
    """What was seen of these acts by a process of its own; afterwards nothing of it is left."""
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "COV_", "FLEET_"))}
    # Ray reads its variables at import, so this is a process of its own; it is measured when this one is.
    measured = ["-m", "coverage", "run", "--parallel-mode"] if coverage.Coverage.current() else []
    plan = json.dumps({"home": str(home), "redis_url": redis_url, "acts": acts})
    done = subprocess.run(
        [sys.executable, *measured, "-m", "tests.support.sandbox_nodes_host", plan],
        cwd=ROOT,
        env={**plain, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert processes_below(home) == []
    return json.loads(done.stdout)


@pytest.mark.wide
@pytest.mark.rule("RC-26", "RC-27", "RC-54")
def test_runs_are_spread_over_nodes_and_go_on_when_one_dies_and_one_comes(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> None:
    seen = played(tmp_path_factory.mktemp("s"), redis_url, "spread", "home_restarts", "node_dies", "node_comes")
    spread, died, came = seen["spread"], seen["node_dies"], seen["node_comes"]
    assert seen["home_restarts"] == {"printed": ["done", "0", "1", "2"], "session": [None, "passed"], "moved": True}
    assert (len(spread["names"]), spread["names"][0]) == (2, "sandbox:local")
    assert all(spread["printed"] + spread["where"])
    assert spread["health"], "the places of all nodes count"
    # The claim of the dead one would last for seven minutes.
    assert died["took_s"] < 120
    assert all(died["where"] + died["again"])
    assert (died["detached"], died["left"]) == ("sandbox_lost", [])
    assert died["names"] == ["sandbox:local"]
    assert (came["is_named"], came["where"]) == (True, True)


@pytest.mark.slow
@pytest.mark.rule("RC-27", "RC-51", "RC-54")
def test_supervisor_that_dies_takes_its_runs_up_again_and_the_home_moves_on(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str
) -> None:
    seen = played(tmp_path_factory.mktemp("h"), redis_url, "supervisor_dies", "home_dies")
    assert seen["supervisor_dies"] == {"where": True, "again": True}
    moved = seen["home_dies"]
    assert moved["near"].strip() == "here"
    assert (moved["where"], moved["names"], moved["in_ray"]) == ([True, True], ["sandbox:local"], True)
