"""Requests and rosters: what may open, and that every problem is named."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleet.council.config import CouncilConfig, CouncilPool
from fleet.council.request import parse_request
from fleet.council.roster import build_roster, derive_seed, passes, quorum_of, roster_problems, voter_weights
from fleet.kernel.errors import InvalidInput
from tests.support.council import member, quality_seat, voters
from tests.support.rules import files

CONFIG = files().load("council.yaml", CouncilConfig)


def document(**changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "story_id": "st-one1",
        "task_description": "Write a queue.",
        "role": "developer",
        "constraints": {"rubric": [{"name": "ac-1", "text": "It is first in, first out."}]},
        "output_kind": "code_patch",
        "budget": {"tokens": 1000, "wall_s": 60},
    }
    return {k: v for k, v in (known | changes).items() if v is not None}


def problems(**changes: Any) -> list[dict[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        parse_request(document(**changes), CONFIG, council_id="co-one1")
    return caught.value.details["problems"]


@pytest.mark.rule("CN-4", "CN-5", "CN-6", "CN-9", "CN-11")
def test_request_without_options_gets_the_defaults_of_the_config():
    request = parse_request(document(), CONFIG, council_id="co-one1")
    assert (request.kind, request.num_agents, request.rounds, request.constraints.timeout_seconds) == (
        "selection",
        3,
        1,
        900,
    )
    assert request.seed == derive_seed("co-one1") != derive_seed("co-one2")
    assert [m.member_id for m in request.roster] == ["developer-001", "developer-002", "developer-003", "qa-001"]
    assert [str(m.principal) for m in request.roster][::3] == ["agent:developer-001", "agent:qa-001"]
    assert all(m.can_propose and m.can_vote for m in request.roster[:3])
    assert [m.test_author for m in request.roster] == [False, False, False, True]


@pytest.mark.rule("CN-14")
def test_default_seats_differ_in_temperature_and_prompt_variant():
    roster = build_roster("selection", "design", proposer_role="architect", num_agents=5, config=CONFIG)
    assert [m.temperature for m in roster] == ["0.2", "0.6", "0.9", "0.2", "0.6"]
    assert len({m.prompt_variant for m in roster}) >= 2
    assert not any(m.test_author for m in roster)


@pytest.mark.rule("CN-11")
def test_test_author_of_a_council_of_testers_has_a_seat_of_its_own():
    roster = build_roster("selection", "code_patch", proposer_role="qa", num_agents=3, config=CONFIG)
    assert roster[-1].member_id == "qa-004"
    assert roster_problems(roster, kind="selection", output_kind="code_patch", num_agents=3, config=CONFIG) == ()


@pytest.mark.rule("CN-5")
def test_rounds_have_an_alias_that_may_not_be_given_as_well():
    assert parse_request(document(max_iterations=2), CONFIG, council_id="co-one1").rounds == 2
    assert "/max_iterations" in {p["field"] for p in problems(max_iterations=2, rounds=1)}


@pytest.mark.rule("CN-8", "CN-12")
def test_every_problem_of_a_request_is_named_at_once():
    found = {p["field"] for p in problems(story_id="ST 1", budget=None, task_description="", role="Dev", extra=1)}
    assert {"/story_id", "/budget", "/task_description", "/role", "/extra"} <= found


@pytest.mark.rule("CN-12")
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"num_agents": 4}, "4 voters"),
        ({"roster": [*voters(2), quality_seat()]}, "2 voters"),
        ({"roster": [*voters(5), quality_seat()]}, "num_agents is 3"),
        ({"roster": [*voters(3), voters(1)[0], voters(2)[1], quality_seat()]}, "used more than once"),
        ({"roster": [member("developer-009", weight=2), *voters(2), quality_seat()]}, "at least half"),
        ({"roster": [member("developer-009", veto=True), *voters(2), quality_seat()]}, "role developer may have none"),
        ({"roster": [*voters(3), member("qa-001", veto=True, can_vote=False), quality_seat()]}, "a veto but no vote"),
        ({"roster": voters(3)}, "needs a test author"),
        ({"roster": [*voters(3), member("qa-001", test_author=True, can_vote=False)]}, "may neither propose nor vote"),
        ({"roster": [*voters(3), quality_seat(), quality_seat()]}, "more than one test author"),
        ({"roster": [*voters(3, can_propose=False), quality_seat()]}, "nobody can propose"),
    ],
)
def test_roster_that_breaks_a_rule_opens_nothing(changes: dict[str, Any], part: str):
    assert any(part in p["problem"] for p in problems(**changes))


@pytest.mark.rule("CN-116", "CN-55")
@pytest.mark.parametrize("size", [3, 5, 7, 9])
def test_no_weight_reaches_half_of_the_total(size: int):
    for weight in range(1, 12):
        roster = (member("developer-099", weight=weight), *voters(size - 1))
        found = roster_problems(roster, kind="gate", output_kind="text", num_agents=size, config=CONFIG)
        assert bool(found) == (2 * weight >= weight + size - 1)


@pytest.mark.rule("CN-10")
def test_gate_needs_a_subject_and_nothing_else_may_have_one():
    digest = "sha256:" + "0" * 64
    assert problems(kind="gate", output_kind="text")[0]["field"] == "/subject"
    assert problems(subject=digest)[0]["field"] == "/subject"
    gate = parse_request(document(kind="gate", output_kind="text", subject=digest), CONFIG, council_id="co-one1")
    assert not any(m.can_propose for m in gate.roster)


@pytest.mark.rule("CN-20")
@pytest.mark.parametrize(("voters", "gate", "selection"), [(3, 3, 2), (5, 4, 3), (7, 5, 4), (9, 7, 5)])
def test_quorum_is_two_thirds_of_a_gate_and_half_of_a_selection(voters: int, gate: int, selection: int):
    assert (quorum_of("gate", voters), quorum_of("selection", voters)) == (gate, selection)
    assert quorum_of("estimate", voters) == selection


@pytest.mark.rule("CN-21")
@pytest.mark.parametrize(
    ("approving", "total", "majority", "two_thirds"), [(2, 3, True, True), (3, 5, True, False), (1, 2, False, False)]
)
def test_threshold_is_over_half_or_at_least_two_thirds(approving: int, total: int, majority: bool, two_thirds: bool):
    assert passes(approving, total, "majority") is majority
    assert passes(approving, total, "two_thirds") is two_thirds


@pytest.mark.rule("CN-6")
def test_rubric_has_one_digest_whatever_else_changes():
    first = parse_request(document(), CONFIG, council_id="co-one1").constraints
    other = parse_request(document(role="qa"), CONFIG, council_id="co-one1").constraints
    changed = {"rubric": [{"name": "ac-1", "text": "It is last in, first out."}]}
    assert first.rubric_digest == other.rubric_digest
    assert parse_request(document(constraints=changed), CONFIG, council_id="co-1").constraints != first


@pytest.mark.rule("CN-13")
def test_councils_are_used_more_the_higher_the_rigor():
    assert not CONFIG.is_used("L0", "code")
    assert CONFIG.is_used("L1", "code")
    assert CONFIG.is_used("L1", "architecture")
    assert (CONFIG.threshold_at("L2"), CONFIG.threshold_at("L3")) == ("majority", "two_thirds")


@pytest.mark.rule("CN-16")
def test_pool_of_real_engines_has_no_mock_modes():
    with pytest.raises(ValidationError, match="modes are for kind mock"):
        CouncilPool(kind="vllm", modes=("poor",))


@pytest.mark.rule("CN-16", "CN-4")
@pytest.mark.parametrize(("seats", "voters"), [(1, 3), (3, 3), (4, 3), (5, 5), (9, 9), (12, 3)])
def test_pool_of_a_size_that_can_vote_gives_its_councils_as_many_voters(seats: int, voters: int):
    pool = CouncilPool(kind="mock", num_agents=seats, model_policy="frugal")
    config = CONFIG.model_copy(update={"pools": {"developer": pool}})
    assert (config.voters_of("developer"), config.voters_of("qa")) == (voters, CONFIG.defaults.num_agents)
    assert (config.policy_of("developer"), config.policy_of("qa")) == ("frugal", "qa")
    wanted = {k: v for k, v in document().items() if k != "num_agents"} | {"role": "developer"}
    found = parse_request(wanted, config, council_id="co-1")
    assert found.num_agents == sum(m.can_vote for m in found.roster) == voters
    assert {m.model_policy for m in found.roster if m.role == "developer"} == {"frugal"}


@pytest.mark.rule("CN-55")
def test_measured_reliability_becomes_the_weight_of_a_seat():
    config = CouncilConfig.model_validate(CONFIG.model_dump() | {"reliability": {"weights": {"developer-002": 2}}})
    roster = build_roster("selection", "text", proposer_role="developer", num_agents=5, config=config)
    assert voter_weights(roster)["developer-002"] == 2
    assert sum(voter_weights(roster).values()) == 6
