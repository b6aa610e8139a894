"""The ports that actors serve: which actor is called, with which method, and how its absence reads."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.adapters.ray.ports import RayAgents, RayForge, RayPacks, RaySandbox
from fleet.errors import InvalidInput, ModelUnavailable, StoreUnavailable
from fleet.ids import Digest, Principal, RunKey, StoryId
from fleet.ports import AgentRequest, Commit, PackRequest
from fleet.tools import RunSpec

STORY, KEY = StoryId("st-a"), RunKey("0" * 64)


class Calls:
    """A resolver that notes its calls; an `answer` that is an error is raised."""

    def __init__(self, answer: Any = "answer") -> None:
        self.seen: list[tuple[str, str]] = []
        self.answer = answer

    async def call(self, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
        self.seen.append((name, method))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def request(principal: str = "agent:developer-002", role: str = "developer") -> AgentRequest:
    return AgentRequest(kind="draft", role=role, principal=Principal(principal), shared="s")


@pytest.mark.rule("CN-11")
async def test_seat_always_lands_on_the_same_actor_of_its_pool() -> None:
    calls = Calls()
    agents = RayAgents(calls, {"developer": 3})  # pyright: ignore[reportArgumentType]
    for number in (1, 2, 3, 4):
        await agents.ask(request(f"agent:developer-{number:03d}"), request_id="r", timeout_s=1)
    assert [name for name, _ in calls.seen] == [f"role:developer:{n}" for n in (0, 1, 2, 0)]


async def test_role_without_actors_is_refused_and_a_dead_actor_is_an_absent_model() -> None:
    with pytest.raises(InvalidInput, match="no actor serves role 'qa'"):
        await RayAgents(Calls(), {"developer": 1}).ask(request(role="qa"), request_id="r", timeout_s=1)  # pyright: ignore[reportArgumentType]
    dead = RayAgents(Calls(StoreUnavailable("gone")), {"developer": 1})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ModelUnavailable, match="gone"):
        await dead.ask(request(), request_id="r", timeout_s=1)


async def test_packs_sandbox_and_forge_call_the_actor_of_their_node() -> None:
    calls: Any = Calls()
    await RayPacks(calls).pack(PackRequest(story_id=STORY, role="qa", phase="TEST", as_of=0))
    sandbox, forge = RaySandbox(calls, "n1"), RayForge(calls, "n1")
    await sandbox.run(RunSpec(argv=("true",)), story=STORY, key=KEY, epoch=1)
    await sandbox.cancel(KEY)
    await sandbox.health()
    await forge.stage("repo")
    digest = Digest("sha256:" + "0" * 64)
    await forge.publish("repo", "fleet/st-a", Commit("c", "b", digest, digest), expected_old=None)
    assert calls.seen == [
        ("context", "pack"),
        ("sandbox:n1", "run"),
        ("sandbox:n1", "cancel"),
        ("sandbox:n1", "sandbox_health"),
        ("sandbox:n1", "stage"),
        ("sandbox:n1", "publish"),
    ]
