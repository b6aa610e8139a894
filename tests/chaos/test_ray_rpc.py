"""Ray loses calls between actors, or their replies (F22): what was asked twice counts once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.oracle import check
from tests.support.ray_fleet import OWN_TO_A_RUN, RayFleet, acknowledged_is_kept, end_without_faults, ray_fleet
from tests.support.team_models import demo_repository, demo_story

pytestmark = pytest.mark.timeout(600)

_CALL = "CoreWorkerService.grpc_client.PushTask"


def losing(*, calls: int, percent: int) -> dict[str, str]:
    """The environment of an actor whose calls to other actors get lost, before they arrive or after they were made."""
    lost = {"num_failures": calls, "req_failure_prob": percent, "resp_failure_prob": percent}
    return {"RAY_testing_rpc_failure": json.dumps({_CALL: {**lost, "in_flight_failure_prob": 0}})}


def injected(home: Path) -> Counter[str]:
    """What Ray says of the faults that it made: request or response -> how often."""
    found: Counter[str] = Counter()
    for log in (home / "ray-logs").glob("python-core-worker-*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if "Inject RPC" in line and "PushTask" in line:
                found["request" if "request failure" in line else "response"] += 1
    return found


@pytest.fixture
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayFleet]:
    """A fleet whose council loses calls; once it has ended, its logs say how many."""
    home = tmp_path_factory.mktemp("l")
    with ray_fleet(home, council_env=losing(calls=12, percent=12)) as fleet:
        yield fleet
    lost = injected(home)
    assert lost["request"] >= 1, lost
    assert lost["response"] >= 1, lost


@pytest.mark.slow
@pytest.mark.rule("RC-51", "RC-54")
async def test_story_whose_calls_are_lost_by_ray_counts_each_step_once(lossy: RayFleet, tmp_path: Path) -> None:
    async with lossy.client() as client:
        story_id = await client.create(demo_story())
        repo = await asyncio.to_thread(demo_repository, tmp_path / "stage")
        await client.start(story_id, repo)
        state = await client.settled(story_id, within_s=200)
        assert state.closed, state.park
        events = await client.events(story_id)
        started = Counter(json.loads(e.body)["step_id"] for e in events if e.type == "StepStarted")
        finished = Counter(json.loads(e.body)["step_id"] for e in events if e.type == "StepFinished")
        assert set(started.values()) == set(finished.values()) == {1}
        assert started.keys() == finished.keys()
        assert acknowledged_is_kept(lossy.proxy.of(f"story:{story_id}"), events) > 100
        expected = {story_id: await end_without_faults(tmp_path / "plain", story_id)}
        await check(client.log, acknowledged=(), expected=expected, ignore=OWN_TO_A_RUN)
