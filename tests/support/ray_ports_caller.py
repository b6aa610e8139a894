"""Calls the actors of a running fleet through the ports, as the council does: HOME REPOSITORY; prints one JSON object.

A process of its own, because Ray reads its variables when it is imported.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from cluster.local.ray_head import ray_environment
from cluster.local.record import find_running
from fleet.context.port import PackRequest
from fleet.forge.port import Commit
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import Principal, RunKey, StoryId
from fleet.models.port import AgentRequest
from fleet.policy.runs.spec import RunSpec

STORY = StoryId("st-ports")


def draft(role: str) -> AgentRequest:
    """Work for a seat of this role, on a model that does not exist."""
    seat = Principal(f"agent:{role}-001")
    return AgentRequest(kind="draft", role=role, principal=seat, shared="", own="write", model="no-such-profile")


async def outcome(work: Awaitable[Any]) -> Any:
    """What the call gave, or code and message of its error."""
    try:
        return str(await work)
    except FleetError as error:
        return [error.code, error.message]


async def main(home: Path, repository: str) -> dict[str, Any]:
    """One entry for each call."""
    fleet = find_running(home)
    assert fleet is not None
    assert fleet.addresses.ray_token_path is not None
    os.environ.update(ray_environment(fleet.addresses.ray_token_path))
    import ray

    from fleet.remote.ports import RayAgents, RayForge, RayPacks, RaySandbox
    from fleet.remote.resolver import ActorResolver

    ray.init(address=fleet.addresses.ray_address, namespace="fleet", log_to_driver=False, configure_logging=False)
    resolver = ActorResolver(wait_s=0.5)
    sandbox, forge = RaySandbox(resolver, "local"), RayForge(resolver, "local")
    agents = RayAgents(resolver, {"developer": 1, "nobody": 1})
    health, staged = await sandbox.health(), await forge.stage(repository)
    true = RunSpec(argv=("true",))
    absent = Commit("0" * 40, "1" * 40, digest_of(b"pack"), digest_of(b"index"))
    pack = PackRequest(story_id=STORY, role="developer", phase="BUILD", as_of=1)
    found = {
        "health": [health.status, health.backend],
        "staged": [staged.commit, staged.branch],
        "cancelled": await sandbox.cancel(RunKey("0" * 64)),
        "first": await outcome(sandbox.run(true, story=STORY, key=RunKey("1" * 64), epoch=2)),
        "stale epoch": await outcome(sandbox.run(true, story=STORY, key=RunKey("2" * 64), epoch=1)),
        "no repository": await outcome(forge.stage(repository + "-missing")),
        "absent commit": await outcome(forge.publish(repository, "fleet/st-ports", absent, expected_old=None)),
        "no node": await outcome(RaySandbox(resolver, "elsewhere").health()),
        "no story": await outcome(RayPacks(resolver).pack(pack)),
        "no profile": await outcome(agents.ask(draft("developer"), request_id="t/1", timeout_s=60)),
        "no actor": await outcome(agents.ask(draft("nobody"), request_id="t/2", timeout_s=60)),
        "no role": await outcome(agents.ask(draft("stranger"), request_id="t/3", timeout_s=60)),
    }
    ray.shutdown()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))))
