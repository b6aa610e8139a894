"""A fleet of one machine is backed up and restored into an empty home by the very lines of the page of operations."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.local.record import find_running
from fleet.cli.endpoints import endpoints_of
from fleet.config.environment import load_settings
from fleet.wiring.stores.stores import make_graph
from tests.support.operations import ROOT, as_written, blocks_of
from tests.support.processes import processes_below
from tests.support.team_models import DEMO, RECORDED, demo_repository

pytestmark = [pytest.mark.wide, pytest.mark.timeout(1500)]


def environment(home: Path) -> dict[str, str]:
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("RAY_", "FLEET_"))}
    return {**plain, "FLEET_HOME": str(home), "FLEET_MEMORY_FLOOR_MB": "500", "PYTHONPATH": str(ROOT)}


def fleet(home: Path, command: str) -> dict[str, Any]:
    """The result of one command on the fleet of this home."""
    told = as_written(f"fleet {command} --json", home.parent, environment(home))
    return json.loads(told.strip().splitlines()[-1])


@pytest.fixture
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The home of a fleet and the place of another one; afterwards nothing of them runs."""
    folder = tmp_path_factory.mktemp("b")
    found = (folder / "a", folder / "b")
    yield found
    for home in found:
        as_written("fleet down", folder, environment(home))
        assert processes_below(home) == []


def graph_of(home: Path) -> str:
    """Digest of all that the graph of the fleet in this home holds, once it has all events."""
    deadline = time.monotonic() + 120
    while fleet(home, "graph status")["lag_total"]:
        assert time.monotonic() < deadline, "the graph does not come to hold what the log says"
        time.sleep(0.5)

    async def digest() -> str:
        running = find_running(home)
        assert running is not None
        graph = make_graph(endpoints_of(load_settings(environment(home)), running.addresses))
        try:
            return await graph.digest()
        finally:
            await graph.close()

    return asyncio.run(digest())


@pytest.mark.rule("GR-7", "GR-9", "EV-9")
def test_restored_fleet_has_the_same_histories_and_builds_the_same_graph(
    homes: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = homes
    repo = demo_repository(tmp_path)
    as_written("fleet up --detach", first.parent, environment(first))
    ran = fleet(first, f"run {DEMO / 'story.yaml'} --repo {repo} --model {RECORDED} --yes po,qa")
    story_id = ran["story_id"]
    (down_and_up,) = [block for block in blocks_of("Back up") if "tar " in block]
    as_written(down_and_up, first.parent, environment(first))
    replayed, graph = fleet(first, f"replay {story_id}"), graph_of(first)
    as_written("fleet down", first.parent, environment(first))

    (restore,) = [block for block in blocks_of("Restore") if "tar " in block]
    told = as_written(restore, second.parent, environment(second))
    assert "it equals the one before it" in told
    assert graph_of(second) == graph
    assert fleet(second, f"replay {story_id}") == replayed
    assert fleet(second, "audit verify")["ok"] is True
    status = fleet(second, "graph status")
    assert (status["state"]["active"], status["lag_total"]) == (2, 0)
