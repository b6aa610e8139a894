"""Doors to what runs in environments."""

from __future__ import annotations

import pytest

from tests.support.environments import BEFORE, NOW, site
from tests.support.world import World


@pytest.mark.door("GET /api/deployments")
def test_fleet_without_targets_has_no_environments(world: World) -> None:
    assert world.get("/api/deployments") == {"items": []}


@pytest.mark.door(
    "POST /api/deployments/{environment}/rollback",
    "POST /api/deployments/{environment}/stop",
    stand_in="a front, an owner and environments in one process: the packaged fleet deploys nowhere",
)
async def test_environment_goes_back_and_is_stopped(world: World) -> None:
    async with site() as at:
        back = await at.end("rollback", number=1)
        world.heard(back)
        assert ((await at.shown())["revision"], back.json()["revision"]) == (BEFORE, BEFORE)
    async with site() as at:
        over = await at.end("stop", number=2, revision=NOW)
        world.heard(over)
        assert (over.json()["is_running"], (await at.shown())["is_running"]) == (False, False)
