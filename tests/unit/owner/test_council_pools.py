"""Pools of councils that an admin sets while the fleet runs: who may, what fits, what councils get of it (CN-16)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.council import CouncilOpened
from fleet.events.platform import CouncilPoolSet
from fleet.kernel.errors import InvalidInput, NotFound, PolicyDenied
from fleet.kernel.ids import CommandId, Principal
from fleet.log.port import Command
from fleet.models.profiles import ModelsConfig, load_models
from fleet.owner.council_pools import PoolRules, pools_in_force
from fleet.owner.duties.councils import open_design_council, open_task_council
from fleet.owner.platform_view import PlatformView
from fleet.planning.platform_state import PLATFORM, PlatformState, RecordedPool
from fleet.policy.roles import load_roles
from fleet.projects.platform_commands import DelegationRules, PlatformFacts, SetCouncilPool
from fleet.story.commands.command import Caller
from fleet.story.intents import OpenDesignCouncil, OpenTaskCouncil
from tests.support.bench import World, definitions
from tests.support.rules import files, fsm
from tests.support.story_events import TASK
from tests.unit.owner.test_requested_councils import ask, do, hold, world_of

ROOT, ANA = Principal("user:root"), Principal("user:ana")
POOL: dict[str, Any] = {"role": "developer", "num_agents": 5, "kind": "mock", "model_policy": None, "modes": []}


async def told(
    world: World, name: str, body: dict[str, Any], *, key: str = "key-1", who: Principal = ROOT
) -> dict[str, Any]:
    command = Command(CommandId(f"{who}/{key}"), PLATFORM, name, who, body)
    return await world.platform_owner().handle(command)


async def set_pool(world: World, *, key: str = "key-1", who: Principal = ROOT, **changes: Any) -> None:
    await told(world, "set_council_pool", POOL | changes, key=key, who=who)


def models() -> ModelsConfig:
    """The shipped engines, and a policy of mocks alone."""
    found = dict(files().document("models.yaml"))
    engine = {"engine_id": "twin", "kind": "mock", "model": "twin", "unpriced": True, "max_context": 8000}
    chain = [{"engine_id": "twin", "max_tokens": 500, "timeout_s": 60}]
    policies = {**found["policies"], "frugal": {"chain": chain}}
    return load_models({**found, "engines": [*found["engines"], engine], "policies": policies})


def rules(**changes: Any) -> PoolRules:
    roles = load_roles(files().document("roles.yaml"))
    return replace(PoolRules(definitions().council, models(), roles), **changes)


def decided(given: PoolRules, body: dict[str, Any]) -> CouncilPoolSet:
    caller, allowed = Caller(principal=ROOT, roles=frozenset({"admin"})), DelegationRules(fsm(), (), lambda: 1, given)
    facts = PlatformFacts(caller, CommandId("user:root/1"), 1, allowed)
    (payload,) = SetCouncilPool.model_validate(body).decide(PlatformState(), facts)
    assert isinstance(payload, CouncilPoolSet)
    return payload


async def opened(world: World) -> list[CouncilOpened]:
    return [p for p in map(decode, await world.events()) if isinstance(p, CouncilOpened)]


@pytest.mark.rule("CN-16", "AP-79", "AP-2")
async def test_pool_is_recorded_once_with_who_and_when_and_is_known_after_a_restart():
    world = World()
    for _ in range(2):
        await set_pool(world)
    (event,) = await world.log.read(PLATFORM)
    assert (event.type, event.actor) == ("CouncilPoolSet", "user:root")
    config = {"num_agents": 5, "kind": "mock", "model_policy": None, "modes": []}
    assert decode(event) == CouncilPoolSet(role="developer", config=config)
    state = await PlatformView(world.log, world.feed).state()
    assert state.pools == {"developer": RecordedPool(config, "user:root", event.ts_ms)}
    found = pools_in_force(definitions().council, state)["developer"]
    assert (found.pool.num_agents, found.recorded) == (5, state.pools["developer"])


@pytest.mark.rule("CN-16", "CN-20")
async def test_pool_staffs_councils_that_open_afterwards_and_none_that_is_open():
    world, bench = await world_of()
    before = await ask(world, bench, role="developer")
    await set_pool(world)
    after = await ask(world, bench, "key-2", role="developer")
    named = await ask(world, bench, "key-3", role="developer", num_agents=7)
    sizes = {c.council_id: (len(c.roster), c.quorum) for c in await opened(world)}
    assert sizes == {before: (3, 2), after: (5, 3), named: (7, 4)}
    assert len((await hold(bench, before)).deliberation.versions()) == 3
    assert len((await hold(bench, after)).deliberation.versions()) == 5


@pytest.mark.rule("CN-16", "CN-11")
async def test_council_on_a_task_has_the_voters_of_its_roles_pool_and_its_own_test_author():
    world, bench = await world_of()
    await set_pool(world)
    await open_task_council(bench, OpenTaskCouncil(task_id=TASK, attempt=1))
    (council,) = await opened(world)
    voters = [m.member_id for m in council.roster if m.can_vote]
    assert voters == [f"developer-00{n}" for n in range(1, 6)]
    assert [m.member_id for m in council.roster if m.test_author] == ["qa-001"]


@pytest.mark.rule("CN-16")
async def test_without_its_pool_a_role_has_the_defaults_until_it_is_set_again():
    world, bench = await world_of()
    await set_pool(world)
    found = await told(world, "remove_council_pool", {"role": "developer"}, key="key-2")
    assert found["version"] == 2
    assert pools_in_force(definitions().council, await world.platform.state()) == {}
    await open_task_council(bench, OpenTaskCouncil(task_id=TASK, attempt=1))
    assert sum(m.can_vote for m in (await opened(world))[0].roster) == 3
    with pytest.raises(NotFound, match="no pool of role 'developer'"):
        await told(world, "remove_council_pool", {"role": "developer"}, key="key-3")
    await set_pool(world, key="key-4", num_agents=7)
    assert pools_in_force(definitions().council, await world.platform.state())["developer"].pool.num_agents == 7


@pytest.mark.rule("CN-16")
async def test_pool_of_the_file_can_be_taken_away():
    world = World()
    assert "developer" in pools_in_force(definitions().council, await world.platform.state())
    await told(world, "remove_council_pool", {"role": "developer"})
    assert "developer" not in pools_in_force(definitions().council, await world.platform.state())


@pytest.mark.rule("CN-16", "MB-2")
async def test_seats_answer_with_the_policy_of_their_pool():
    world, bench = await world_of()
    await set_pool(world, role="architect", num_agents=3, model_policy="default")
    council_id = await ask(world, bench)
    record = await hold(bench, council_id)
    assert {m.model_policy for m in record.opened.roster} == {"default"}
    assert {request.policy for request in world.agents.requests} == {"default"}
    await open_design_council(bench, OpenDesignCouncil(attempt=1))
    design = (await opened(world))[-1]
    assert {m.role: m.model_policy for m in design.roster} == {
        "architect": "default",
        "developer": "developer",
        "devops": "devops",
    }


@pytest.mark.rule("CN-16", "CN-63")
async def test_council_that_is_sent_back_is_asked_anew_under_the_pool_of_then():
    world, bench = await world_of()
    await set_pool(world, role="architect", num_agents=3, model_policy="default")
    first = await ask(world, bench)
    await hold(bench, first)
    await told(world, "remove_council_pool", {"role": "architect"}, key="key-2")
    back = {"council_id": first, "reason": "umlauts of other languages were left out"}
    again = await do(world, bench, "reject_council", back, key="key-3")
    assert {m.model_policy for m in bench.state.councils[again].opened.roster} == {"architect"}


@pytest.mark.rule("AP-79")
@pytest.mark.parametrize(("name", "body"), [("set_council_pool", POOL), ("remove_council_pool", {"role": "developer"})])
async def test_pools_are_for_admins(name: str, body: dict[str, Any]):
    world = World()
    with pytest.raises(PolicyDenied, match="does not hold role 'admin'"):
        await told(world, name, body, who=ANA)
    assert await world.log.read(PLATFORM) == []


@pytest.mark.rule("CN-16", "CN-4", "CN-12")
@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"role": "butler"}, "role", "no assignable role 'butler'"),
        ({"role": "po"}, "role", "no assignable role 'po'"),
        ({"num_agents": 4}, "num_agents", "allowed are 3, 5, 7, 9"),
        ({"num_agents": 1}, "num_agents", "allowed are 3, 5, 7, 9"),
        ({"num_agents": 11}, "num_agents", "allowed are 3, 5, 7, 9"),
        ({"num_agents": 0}, "num_agents", "greater than or equal to 1"),
        ({"num_agents": "many"}, "num_agents", "valid integer"),
        ({"kind": "oracle"}, "kind", "say vllm or"),
        ({"model_policy": "lavish"}, "model_policy", "no policy 'lavish'; allowed are"),
        ({"model_policy": "frugal", "kind": "vllm"}, "kind", "no engine of kind 'vllm'; allowed are mock"),
        ({"kind": "local", "modes": ["poor"]}, "modes", "modes are for kind mock"),
        ({"modes": ["lazy"]}, "modes.0", "'excellent'"),
        ({"colour": "red"}, "colour", "not permitted"),
    ],
)
def test_pool_that_nobody_could_serve_is_refused_with_what_to_change(changes: dict[str, Any], field: str, says: str):
    with pytest.raises(InvalidInput, match=says) as caught:
        decided(rules(), POOL | changes)
    assert caught.value.details["field"] == field


@pytest.mark.rule("CN-16")
def test_pool_of_mocks_fits_where_its_policy_names_one():
    assert decided(rules(), POOL | {"model_policy": "frugal"}).config["model_policy"] == "frugal"


@pytest.mark.rule("CN-16")
def test_pool_of_a_role_without_agents_is_refused():
    with pytest.raises(InvalidInput, match=r"give it some under `pools` of fleet\.yaml"):
        decided(rules(staffed=frozenset({"qa"})), POOL)
    assert decided(rules(staffed=frozenset({"developer"})), POOL)


@pytest.mark.rule("CN-12", "CN-55")
def test_pool_in_which_one_measured_seat_would_decide_alone_is_refused():
    config = definitions().council
    weighty = config.model_copy(
        update={"reliability": config.reliability.model_copy(update={"weights": {"developer-002": 2}})}
    )
    with pytest.raises(InvalidInput, match="nobody may decide alone"):
        decided(rules(config=weighty), POOL | {"num_agents": 3})
    assert decided(rules(config=weighty), POOL | {"num_agents": 5})


@pytest.mark.rule("EV-30", "CN-16")
def test_pool_recorded_under_other_rules_is_passed_over():
    state = PlatformState(pools={"developer": RecordedPool({"seats": 12}, "user:root", 1)})
    assert "developer" not in pools_in_force(definitions().council, state)
