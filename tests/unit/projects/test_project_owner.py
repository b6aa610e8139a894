"""Projects are owned for the moment of a command; what follows from it happens whatever dies (PL-1, PL-4, PL-54)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fleet.kernel.errors import (
    FleetError,
    InvalidInput,
    InvalidTransition,
    LeaseHeld,
    ModelUnavailable,
    NotFound,
    PolicyDenied,
)
from fleet.kernel.ids import CommandId, EntityId, Principal, StoryId, StreamId, derive_id
from fleet.log.port import Command
from fleet.models.port import AgentRequest
from fleet.planning.project_state import DEFAULT_PROJECT
from fleet.planning.project_text import ProjectChanges
from fleet.projects.project_commands import CreateProject, UpdateProject
from fleet.projects.project_owner import ProjectOwner, parse_project_command
from tests.support.bench import STORY_TEXT, ScriptedAgents, World
from tests.support.damaged import DamagedLog
from tests.support.town import Town, running

ANA, DEV = Principal("user:ana"), Principal("user:dev")
SHOP = EntityId("pr-shop1")
TEXT = {"title": "Shop", "description": "Sells things", "default_rigor": "L2", "languages": ["python"]}
GOAL = "A shop with a cart and a search"
STORIES = [
    {
        "title": "As a shopper I want a cart so that I can buy more",
        "description": "A cart keeps what a shopper chose so that it can be paid at once.",
        "acceptance_criteria": ["Given a cart, when I add a book, then it holds one book"],
        "depends_on": [],
    }
]
WHY = "nobody needs it any more"
QUEUED: dict[str, tuple[str, dict[str, Any]]] = {
    "project is created": ("create_project", {"project": TEXT | {"repo": {"url": "/srv/shop"}, "constraints": {}}}),
    "project is archived": ("update_project", {"changes": {"status": "archived"}}),
    "epic is created": ("create_epic", {"epic": {"title": "Cart", "description": "", "goal": "", "priority": 5}}),
    "epic is edited": ("update_epic", {"epic_id": "ep-1", "changes": {"title": "Cart"}, "reason": ""}),
    "epic is cancelled": ("update_epic", {"epic_id": "ep-1", "changes": {"status": "cancelled"}, "reason": WHY}),
    "front asks": ("discover", {"goal": GOAL, "language": "en", "is_empty": False}),
    "goal is run": ("discover", {"goal": GOAL, "is_empty": True, "model": "mock"}),
    "question is answered": ("answer_discovery", {"discovery_id": "di-1", "answers": {"qu-1": "shopper"}}),
    "proposal is accepted": ("accept_discovery", {"discovery_id": "di-1", "note": ""}),
    "proposal is accepted by a run": ("accept_discovery", {"discovery_id": "di-1", "note": "ok", "rigor": "L0"}),
    "proposal is rejected": ("reject_discovery", {"discovery_id": "di-1", "reason": WHY}),
    "review is opened": ("open_ceremony", {"story_ids": ["st-1", "st-2"]}),
    "review is of others": ("choose_ceremony_stories", {"ceremony_id": "ce-1", "story_ids": ["st-1"]}),
    "review is started": ("start_ceremony", {"ceremony_id": "ce-1"}),
    "story is approved": (
        "decide_ceremony_story",
        {
            "ceremony_id": "ce-1",
            "story_id": "st-1",
            "approve": True,
            "po_notes": WHY,
            "priority_adjustment": "HIGH",
            "priority_reason": WHY,
            "plan_of": "qa",
        },
    ),
    "story is rejected": (
        "decide_ceremony_story",
        {"ceremony_id": "ce-1", "story_id": "st-1", "approve": False, "reason": WHY},
    ),
    "review is completed": ("complete_ceremony", {"ceremony_id": "ce-1", "by": "a field of a later version"}),
    "review is cancelled": ("cancel_ceremony", {"ceremony_id": "ce-1", "reason": WHY}),
}
"""Bodies as version 1.0 queued them, by what they are for."""


def command(name: str, body: dict[str, Any], *, project: str = SHOP, who: Principal = ANA, key: str = "") -> Command:
    return Command(
        command_id=CommandId(f"{who}/{key or name}"),
        stream=StreamId(f"project:{project}"),
        name=name,
        principal=who,
        body=body,
    )


async def do(owner: ProjectOwner, name: str, body: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    return await owner.handle(command(name, body, **kwargs))


async def types(world: World, project: str = SHOP) -> list[str]:
    return [e.type for e in await world.log.read(StreamId(f"project:{project}"))]


@pytest.mark.rule("PL-2", "GL-9")
async def test_project_has_a_built_in_epic_and_the_same_command_makes_it_once():
    world = World()
    owner = world.project_owner()
    first = await do(owner, "create_project", {"project": TEXT})
    assert await do(owner, "create_project", {"project": TEXT}) == first
    assert await types(world) == ["ProjectCreated", "EpicCreated"]
    state = await world.projects.project(SHOP)
    assert (state.title, state.default_rigor, state.languages) == ("Shop", "L2", ("python",))
    assert state.inbox is not None
    assert state.epics[state.inbox].title == "inbox"
    with pytest.raises(InvalidTransition, match="exists already"):
        await do(owner, "create_project", {"project": TEXT}, key="again")


@pytest.mark.rule("PL-2")
async def test_default_project_is_there_without_any_event():
    world = World()
    (only,) = await world.projects.projects()
    assert (only.project_id, only.inbox, only.is_open) == (DEFAULT_PROJECT, "ep-inbox", True)


@pytest.mark.rule("PL-1", "GL-15")
async def test_refused_command_records_nothing():
    world = World()
    owner = world.project_owner()
    with pytest.raises(NotFound, match="there is no project"):
        await do(owner, "create_epic", {"epic": {"title": "Cart"}})
    with pytest.raises(NotFound, match="there is no project"):
        await do(owner, "update_project", {"changes": {"title": "Other"}})
    with pytest.raises(PolicyDenied):
        await do(owner, "create_project", {"project": TEXT}, who=DEV)
    with pytest.raises(InvalidInput) as refused:
        await do(owner, "create_project", {"project": {"title": "", "default_rigor": "L9", "colour": "red"}})
    assert {p["pointer"] for p in refused.value.details["problems"]} == {
        "/project/title",
        "/project/default_rigor",
        "/project/colour",
    }
    for wrong in ("no mapping", TEXT | {"default_lifecycle": "waterfall"}, TEXT | {"constraints": {"ratio": 0.5}}):
        with pytest.raises(InvalidInput):
            await do(owner, "create_project", {"project": wrong})
    with pytest.raises(InvalidInput, match="there is no command"):
        await do(owner, "explode", {})
    assert await types(world) == []
    await world.leases.claim(StreamId(f"project:{SHOP}"), "council:9/z", ttl_s=15)


@pytest.mark.rule("PL-1")
async def test_archived_project_takes_no_more_epics_and_may_be_opened_again():
    world = World()
    owner = world.project_owner()
    await do(owner, "create_project", {"project": TEXT})
    await do(owner, "update_project", {"changes": {"status": "archived"}})
    with pytest.raises(InvalidTransition, match="is archived"):
        await do(owner, "create_epic", {"epic": {"title": "Cart"}})
    with pytest.raises(InvalidInput, match="at least one field"):
        await do(owner, "update_project", {"changes": {}}, key="nothing")
    await do(owner, "update_project", {"changes": {"status": "active", "title": "Store"}}, key="open")
    made = await do(owner, "create_epic", {"epic": {"title": "Cart", "goal": "Buy more", "priority": 2}}, key="epic")
    line = await world.projects.epic(made["epic_id"])
    assert (line.epic.title, line.epic.priority, line.status, line.project_id) == ("Cart", 2, "active", SHOP)
    assert (await world.projects.project(SHOP)).title == "Store"


@pytest.mark.rule("PL-4")
async def test_epic_is_archived_or_cancelled_by_a_person_and_then_stays_so():
    world = World()
    owner = world.project_owner()
    await do(owner, "create_project", {"project": TEXT})
    epic = (await do(owner, "create_epic", {"epic": {"title": "Cart"}}))["epic_id"]
    inbox = (await world.projects.project(SHOP)).inbox
    with pytest.raises(InvalidInput, match="reason"):
        await do(owner, "update_epic", {"epic_id": epic, "changes": {"status": "archived"}})
    with pytest.raises(InvalidTransition, match="built-in"):
        await do(
            owner, "update_epic", {"epic_id": inbox, "changes": {"status": "archived"}, "reason": "not needed now"}
        )
    with pytest.raises(InvalidInput):
        await do(owner, "update_epic", {"epic_id": epic, "changes": {"status": "completed"}})
    with pytest.raises(InvalidInput, match="at least one field"):
        await do(owner, "update_epic", {"epic_id": epic, "changes": {}})
    with pytest.raises(NotFound):
        await do(owner, "update_epic", {"epic_id": "ep-none1", "changes": {"title": "x"}})
    done = await do(
        owner, "update_epic", {"epic_id": epic, "changes": {"status": "archived"}, "reason": "not needed now"}
    )
    assert (done["epic_id"], done["status"]) == (epic, "archived")
    assert (await world.projects.epic(epic)).status == "archived"
    with pytest.raises(InvalidTransition, match="is archived"):
        await do(owner, "update_epic", {"epic_id": epic, "changes": {"title": "Other"}}, key="late")


@pytest.mark.rule("PL-1", "PL-2")
async def test_story_needs_an_open_parent_and_takes_the_defaults_of_its_project():
    town = Town()
    async with running(town.shard()):
        ask = STORY_TEXT | {"project_id": SHOP}
        one, two = StoryId("st-one1"), StoryId("st-two2")
        with pytest.raises(NotFound, match="there is no project"):
            await town.do(one, "create_story", {"story": ask}, key="early")
        owner = town.project_owner("council:9/z")
        await do(owner, "create_project", {"project": TEXT})
        with pytest.raises(NotFound, match="has no epic"):
            await town.do(one, "create_story", {"story": ask | {"epic_id": "ep-none1"}}, key="no-epic")
        await town.do(one, "create_story", {"story": ask})
        state = await town.desk.state(one)
        assert (state.project_id, state.rigor) == (SHOP, "L2")
        assert state.epic_id == (await town.projects.project(SHOP)).inbox
        await do(owner, "update_project", {"changes": {"status": "archived"}})
        with pytest.raises(InvalidTransition, match="takes no more stories"):
            await town.do(two, "create_story", {"story": ask})


@pytest.mark.rule("PL-4")
async def test_cancelling_an_epic_cancels_its_open_stories_with_the_same_reason():
    town = Town()
    async with running(town.shard()):
        owner = town.project_owner("council:9/z")
        epic = (await do(owner, "create_epic", {"epic": {"title": "Cart"}}, project=DEFAULT_PROJECT))["epic_id"]
        one, two = StoryId("st-one1"), StoryId("st-two2")
        await town.do(one, "create_story", {"story": STORY_TEXT | {"epic_id": epic}})
        await town.do(two, "create_story", {"story": STORY_TEXT})
        assert (await town.projects.epic(epic)).status == "planning"
        body = {"epic_id": epic, "changes": {"status": "cancelled"}, "reason": "the shop is closed"}
        await do(owner, "update_epic", body, project=DEFAULT_PROJECT)
        await do(owner, "update_epic", body, project=DEFAULT_PROJECT)
        await town.pass_time(5)
        assert (await town.desk.state(one)).disposition == "cancelled"
        assert (await town.desk.state(two)).disposition == "active"
        assert (await town.types(one)).count("StoryCancelled") == 1


@pytest.mark.rule("PL-4")
async def test_epic_is_cancelled_with_its_stories_while_another_story_cannot_be_read():
    log = DamagedLog()
    town = Town(log)
    async with running(town.shard()):
        owner = town.project_owner("council:9/z")
        epic = (await do(owner, "create_epic", {"epic": {"title": "Cart"}}, project=DEFAULT_PROJECT))["epic_id"]
        one = StoryId("st-one1")
        await town.do(one, "create_story", {"story": STORY_TEXT | {"epic_id": epic}})
        await log.alter()
        body = {"epic_id": epic, "changes": {"status": "cancelled"}, "reason": "the shop is closed"}
        await do(owner, "update_epic", body, project=DEFAULT_PROJECT)
        await town.pass_time(5)
        assert (await town.desk.state(one)).disposition == "cancelled"


# Discovery.


async def discovered(owner: ProjectOwner, **changes: Any) -> str:
    body = {"goal": GOAL, "is_empty": True, **changes}
    return (await do(owner, "discover", body, project=DEFAULT_PROJECT))["discovery_id"]


@pytest.mark.rule("PL-54")
async def test_without_a_model_the_rules_propose_and_nothing_is_created():
    world = World()
    discovery_id = await discovered(world.project_owner())
    found, proposal = await world.projects.discovery(DEFAULT_PROJECT, discovery_id)
    assert (found.status, found.source, found.note) == ("proposed", "template", "no model is configured")
    assert len(proposal.stories) == 4
    assert await types(world, DEFAULT_PROJECT) == ["DiscoveryRequested", "DiscoveryProposed"]
    assert await world.log.streams() == [f"project:{DEFAULT_PROJECT}"]


@pytest.mark.rule("PL-54", "GL-15")
async def test_goal_that_names_nothing_is_refused_and_records_nothing():
    world = World()
    with pytest.raises(InvalidInput, match="names nothing to build"):
        await discovered(world.project_owner(), goal="make something nice")
    with pytest.raises(PolicyDenied):
        await do(world.project_owner(), "discover", {"goal": GOAL}, project=DEFAULT_PROJECT, who=DEV)
    assert await world.log.streams() == []


@pytest.mark.rule("PL-54")
async def test_accepted_proposal_becomes_an_epic_and_stories_in_order():
    town = Town()
    async with running(town.shard()):
        owner = town.project_owner("council:9/z")
        discovery_id = await discovered(owner)
        await do(
            owner,
            "answer_discovery",
            {"discovery_id": discovery_id, "answers": {"qu-1": "shopper"}},
            project=DEFAULT_PROJECT,
        )
        body = {"discovery_id": discovery_id, "note": "for the sale"}
        result = await do(owner, "accept_discovery", body, project=DEFAULT_PROJECT)
        await town.pass_time(5)
        assert (result["status"], len(result["story_ids"])) == ("accepted", 4)
        scaffold, core, *features = [await town.desk.state(StoryId(s)) for s in result["story_ids"]]
        assert scaffold.content.tags == ("scaffold",)
        assert core.content.title.startswith("As a shopper, I want A shop")
        assert core.content.constraints == {"after_stories": [scaffold.story_id]}
        assert features[0].content.constraints == {"after_stories": [scaffold.story_id, core.story_id]}
        assert {s.epic_id for s in (scaffold, core, *features)} == {result["epic_id"]}
        line = await town.projects.epic(result["epic_id"])
        assert (line.epic.goal, line.status, set(line.stories)) == (GOAL, "planning", set(result["story_ids"]))
        await town.projects.require_story(ANA, StoryId(result["story_ids"][0]))
        with pytest.raises(InvalidTransition, match="is accepted"):
            await do(
                owner, "reject_discovery", {"discovery_id": discovery_id, "reason": "x" * 20}, project=DEFAULT_PROJECT
            )


class Dead(BaseException):
    """The process ended here."""


class _Dying:
    """A queue whose first use is the end of the process: right after the append."""

    async def submit(self, command: Command) -> None:
        raise Dead


@pytest.mark.rule("PL-54", "GL-9", "PL-48")
async def test_owner_that_dies_before_the_stories_are_queued_loses_none_of_them():
    town = Town()
    whole = town.inbox
    discovery_id = await discovered(town.project_owner("council:9/z"))
    accept = command("accept_discovery", {"discovery_id": discovery_id}, project=DEFAULT_PROJECT)
    town.inbox = _Dying()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(Dead):
        await town.project_owner("council:9/z").handle(accept)
    town.inbox = whole
    async with running(town.shard()):
        # The command was never acknowledged, so it comes again: to another owner.
        result = await town.project_owner("council:8/y").handle(accept)
        await town.pass_time(5)
        assert [(await town.desk.state(StoryId(s))).version > 0 for s in result["story_ids"]] == [True] * 4
        assert (await types(town, DEFAULT_PROJECT)).count("DiscoveryAccepted") == 1
        assert result["epic_id"] == derive_id("ep", accept.stream, accept.command_id)


@pytest.mark.rule("PL-54")
async def test_rejected_proposal_creates_nothing():
    world = World()
    owner = world.project_owner()
    discovery_id = await discovered(owner)
    with pytest.raises(InvalidInput, match="reason"):
        await do(owner, "reject_discovery", {"discovery_id": discovery_id}, project=DEFAULT_PROJECT)
    body = {"discovery_id": discovery_id, "reason": "the goal has changed"}
    assert (await do(owner, "reject_discovery", body, project=DEFAULT_PROJECT))["status"] == "rejected"
    with pytest.raises(InvalidTransition):
        await do(owner, "accept_discovery", {"discovery_id": discovery_id}, project=DEFAULT_PROJECT)
    with pytest.raises(NotFound):
        await do(owner, "accept_discovery", {"discovery_id": "di-none1"}, project=DEFAULT_PROJECT, key="none")
    with pytest.raises(NotFound):
        await world.projects.discovery(DEFAULT_PROJECT, "di-none1")
    other = await do(owner, "discover", {"goal": GOAL}, project=DEFAULT_PROJECT, key="second")
    with pytest.raises(InvalidInput, match="answers"):
        await do(owner, "answer_discovery", {"discovery_id": other["discovery_id"]}, project=DEFAULT_PROJECT)


def _says(*answers: Any) -> ScriptedAgents:
    left = list(answers)

    def answer(request: AgentRequest) -> Any:
        assert request.kind == "advise"
        assert f"<goal>\n{GOAL}\n</goal>" in request.shared
        return left.pop(0)

    return ScriptedAgents(answer)


GOOD = {"requirements": ["A cart"], "questions": ["In which currency?"], "stories": STORIES}
BAD = GOOD | {"stories": [STORIES[0] | {"depends_on": [4]}]}


@pytest.mark.rule("PL-54")
@pytest.mark.parametrize(
    ("answers", "source", "note", "tokens"),
    [
        ((GOOD,), "model", None, 10),
        ((BAD, GOOD), "model", None, 20),
        ((BAD, BAD), "template", "did not keep to the rules", 20),
        ((ModelUnavailable("no engine is up"),), "template", "no model answered (model_unavailable)", 0),
    ],
)
async def test_model_proposes_and_is_told_once_what_is_wrong(answers: Any, source: str, note: str | None, tokens: int):
    agents = _says(*answers)
    world = World()
    owner = world.project_owner(with_model=True, agents=agents)
    discovery_id = await discovered(owner)
    assert (await world.projects.discovery(DEFAULT_PROJECT, discovery_id))[0].status == "requested"
    await owner.work()
    await owner.work()
    found, proposal = await world.projects.discovery(DEFAULT_PROJECT, discovery_id)
    assert (found.status, found.source, proposal.source) == ("proposed", source, source)
    assert note in (found.note or "") if note else found.note is None
    (proposed,) = [e for e in await world.log.read(StreamId(f"project:{DEFAULT_PROJECT}")) if "Proposed" in e.type]
    assert f'"tokens_in":{tokens}'.encode() in proposed.body
    if len(agents.requests) == 2:
        assert "story 0 depends on 4" in agents.requests[1].own


@pytest.mark.rule("GL-19", "PL-54")
async def test_two_owners_ask_the_model_once():
    agents = _says(GOOD)
    world = World()
    one = world.project_owner("council:0/a", with_model=True, agents=agents)
    two = world.project_owner("council:1/b", with_model=True, agents=agents)
    await discovered(one)
    await world.leases.claim(StreamId(f"project:pr-work-of-{DEFAULT_PROJECT}"), "council:0/a", ttl_s=15)
    await two.work()
    assert agents.asked == []
    await one.work()
    await two.work()
    assert len(agents.asked) == 1


@pytest.mark.rule("EV-30", "AP-2")
@pytest.mark.parametrize("which", QUEUED)
def test_body_of_an_earlier_version_is_read_and_asks_for_the_same(which: str):
    name, body = QUEUED[which]
    sent = parse_project_command(name, body)
    assert sent.command == name
    assert sent.body() == {key: value for key, value in body.items() if key in type(sent).model_fields}
    assert parse_project_command(name, sent.body()) == sent


@pytest.mark.rule("GL-15")
@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("answer_discovery", {"discovery_id": "di-1"}, "answers is a mapping of question ids to texts"),
        ("reject_discovery", {"discovery_id": "di-1", "reason": " no "}, "reason has 2 characters; write 10 to 4,000"),
        ("cancel_ceremony", {"ceremony_id": "ce-1"}, "reason has 0 characters; write 10 to 4,000"),
        ("create_epic", {"epic": {"title": "a\x00b"}}, "create_epic is wrong: /epic/title: Value error, control "),
    ],
)
def test_wrong_body_is_told_in_a_sentence(name: str, body: dict[str, Any], said: str):
    with pytest.raises(InvalidInput) as refused:
        parse_project_command(name, body)
    assert refused.value.message.startswith(said)


@pytest.mark.rule("GL-7")
async def test_texts_are_kept_in_nfc():
    world = World()
    await do(world.project_owner(), "create_project", {"project": TEXT | {"title": "Cafe\u0301"}})
    assert (await world.projects.project(SHOP)).title == "Caf\u00e9"


async def test_project_that_another_owner_is_at_is_left_for_later():
    world = World()
    await world.leases.claim(StreamId(f"project:{SHOP}"), "council:9/z", ttl_s=15)
    with pytest.raises(LeaseHeld):
        await do(world.project_owner(), "create_project", {"project": TEXT})


async def test_commands_on_projects_come_by_the_queue_of_the_shards():
    town = Town()
    async with running(town.shard()):
        sent = CreateProject.model_validate({"project": TEXT})
        asked = town.projects.require(SHOP, sent, principal=ANA, key="key-12345")
        task = asyncio.create_task(asked)
        await town.until(task.done)
        assert task.result()["project_id"] == SHOP
        refused = asyncio.create_task(
            town.projects.require(SHOP, UpdateProject(changes=ProjectChanges()), principal=ANA, key="key-23456")
        )
        await town.until(refused.done)
        with pytest.raises(FleetError, match="at least one field"):
            refused.result()
