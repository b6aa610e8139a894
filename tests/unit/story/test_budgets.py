"""Budgets of a story: a fold of its events, and what they leave for the next call (MB-20..MB-26)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.events.approval import ApprovalGranted
from fleet.events.budget import BudgetScope, BudgetSet, BudgetWarning, UsageAdjusted
from fleet.events.payload import Payload
from fleet.events.report import OwnershipTaken
from fleet.events.step import (
    Cost,
    PolicyRef,
    Provenance,
    Reserve,
    StepFinished,
    StepOutcomeUnknown,
    StepResolved,
    StepStarted,
)
from fleet.events.story import StoryCancelled, StoryParked
from fleet.kernel.errors import BudgetExceeded, InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import EntityId, Principal, RunKey, StepId
from fleet.models.engine_config import Price
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import BudgetLimits, Spend
from fleet.models.usage import cost_of, dearest
from fleet.story.allowance import (
    CallNeed,
    allow_again,
    allow_call,
    budget_lines,
    exhaustion_of,
    limits_of,
    require_room,
    used_up,
)
from fleet.story.budgets import ScopeUsage
from fleet.story.commands.budgets import ConsentNeeded, change_of, parse_scope, request_raise, set_budget
from fleet.story.commands.command import Caller
from fleet.story.state import StoryState
from tests.support.rules import fsm
from tests.support.story_events import STORY, TASK, TASK_COUNCIL, StoryLog, digest, story

ANA = Caller(Principal("user:ana"), frozenset({"po"}))
ROOT = Caller(Principal("user:root"), frozenset({"admin"}))
SCOPE = BudgetScope(kind="story", id=STORY)
PRICE = Price(in_microusd_per_mtok=1_000_000, out_microusd_per_mtok=2_000_000)
NEED = CallNeed(step_id=StepId("s-1"), role="developer", prompt_tokens=100, max_tokens=700)


def started(step: str, *, tokens: int = 1000, kind: Any = "model", deadline_ms: int = 10**15, **ids: Any) -> Any:
    return StepStarted(
        step_id=StepId(step),
        kind=kind,
        tool="model",
        op="draft",
        effect="PURE",
        as_role="developer",
        principal=Principal("agent:developer-001"),
        request_digest=digest(step),
        key=RunKey("ab" * 32),
        deadline_ms=deadline_ms,
        policy=PolicyRef(rule_id="r", digest=digest("p")),
        reserve=Reserve(tokens=tokens, output_tokens=tokens // 2, cost_microusd=7),
        **ids,
    )


def finished(step: str, *, tokens_in: int = 200, tokens_out: int = 100, cost: int | None = 5) -> StepFinished:
    return StepFinished(
        step_id=StepId(step),
        outcome="succeeded",
        result_digest=digest("result"),
        cost=Cost(tokens_in=tokens_in, tokens_out=tokens_out, cost_microusd=cost, priced=cost is not None, calls=2),
        provenance=Provenance(),
    )


def taken(epoch: int) -> OwnershipTaken:
    return OwnershipTaken(epoch=epoch, previous_epoch=epoch - 1, owner=f"council:0/{epoch}", cause="restart")


def usage(log: StoryLog, kind: Any = "story", name: str = STORY) -> ScopeUsage:
    return log.state.budgets.usage(BudgetScope(kind=kind, id=name))


def fresh() -> StoryLog:
    return story(until="created")


@pytest.mark.rule("MB-22")
def test_step_reserves_in_every_scope_and_settles_with_what_it_used() -> None:
    log = fresh().add(started("a", task_id=TASK, council_id=TASK_COUNCIL))
    for kind, name in (("story", STORY), ("task", TASK), ("council", TASK_COUNCIL), ("role", "developer")):
        assert usage(log, kind, name).reserved == Spend(tokens=1000, output_tokens=500, calls=1, cost_microusd=7)
    log.add(finished("a"))
    for kind, name in (("story", STORY), ("task", TASK), ("council", TASK_COUNCIL), ("role", "developer")):
        found = usage(log, kind, name)
        assert found.reserved == Spend()
        assert replace(found.spent, wall_ms=0) == Spend(tokens=300, output_tokens=100, calls=2, cost_microusd=5)
    assert log.state.budgets.holds == {}
    assert usage(log.add(finished("a", tokens_in=9))).spent.tokens == 300


@pytest.mark.rule("MB-23")
def test_call_whose_owner_ended_stays_spent_and_its_repeat_counts_too() -> None:
    log = fresh().add(started("a"), started("r", tokens=0, kind="run"))
    assert usage(log.add(taken(2), taken(3))).reserved.tokens == 3000
    log.add(finished("a"))
    assert (usage(log).reserved.tokens, usage(log).spent.tokens) == (2000, 300)
    assert log.state.budgets.holds["a"].lost == (0, 2)
    log.add(UsageAdjusted(step_id=StepId("a"), delta={"tokens": 450, "calls": 1}, source="engine:e"))
    assert (usage(log).reserved.tokens, usage(log).spent.tokens) == (0, 750)
    log.add(UsageAdjusted(step_id=StepId("a"), delta={"tokens": -50}, source="engine:e"))
    log.add(UsageAdjusted(step_id=StepId("nobody"), delta={"tokens": 50}, source="engine:e"))
    assert usage(log).spent.tokens == 700


@pytest.mark.rule("MB-23")
def test_adjusting_a_call_that_runs_frees_the_lost_ones_alone_and_an_abandoned_one_is_freed_whole() -> None:
    log = fresh().add(started("a"), taken(2))
    log.add(UsageAdjusted(step_id=StepId("a"), delta={"tokens": 450}, source="engine:e"))
    assert (usage(log).reserved.tokens, usage(log).spent.tokens) == (1000, 450)
    log.add(UsageAdjusted(step_id=StepId("a"), delta={"tokens": 50}, source="engine:e"))
    assert (usage(log).reserved.tokens, usage(log).spent.tokens) == (0, 500)


@pytest.mark.rule("MB-23")
@settings(max_examples=40, deadline=None)
@given(moves=st.lists(st.sampled_from(["start", "take", "finish"]), max_size=12))
def test_spent_and_reserved_never_fall_but_by_a_result(moves: list[str]) -> None:
    log, number, open_ = fresh(), 0, list[str]()
    for at, move in enumerate(moves):
        before = usage(log).totals().used.tokens
        if move == "finish" and open_:
            log.add(finished(open_.pop()))
            continue
        if move == "start":
            number += 1
            open_.append(f"s{number}")
            log.add(started(open_[-1]))
        else:
            log.add(taken(at + 1))
        assert usage(log).totals().used.tokens >= before


@pytest.mark.rule("MB-26")
def test_time_counts_once_while_anything_runs_and_not_while_somebody_is_waited_for() -> None:
    log = fresh().wait(1000).add(started("a"))
    begun = log.events[-1].ts_ms
    log.wait(500).add(started("b")).wait(500).add(finished("a")).wait(500).add(finished("b"))
    took = log.events[-1].ts_ms - begun
    assert usage(log).spent.wall_ms == took
    log.wait(60_000).add(started("u", kind="tool", tokens=0))
    began = log.events[-1].ts_ms
    unknown = StepOutcomeUnknown(step_id=StepId("u"), sent_digest=digest("u"), sent_at=began)
    log.wait(300).add(unknown)
    took += log.events[-1].ts_ms - began
    assert usage(log.wait(10**6).add(finished("u"))).spent.wall_ms == took


@pytest.mark.rule("MB-26")
def test_time_after_a_deadline_and_time_without_an_owner_are_nobodys() -> None:
    log = fresh()
    now = log.events[-1].ts_ms
    log.add(started("a", deadline_ms=now + 5000))
    since = log.events[-1].ts_ms
    assert usage(log).totals(now_ms=since + 10**6).used.wall_ms == now + 5000 - since
    log.wait(500).add(started("b", deadline_ms=now + 9000))
    last = log.events[-1].ts_ms
    # The owner's last sign of life ends its time, however much later, by another clock, the next one begins.
    log.wait(10**6).add(taken(2))
    assert usage(log).spent.wall_ms == last - since > 0
    log.wait(10**6).add(finished("a")).add(finished("b"))
    assert usage(log).spent.wall_ms == last - since + now + 9000 - since


def test_owner_whose_clock_is_behind_takes_no_time_back() -> None:
    log = fresh()
    log.add(started("a", deadline_ms=log.events[-1].ts_ms + 5000))
    log.wait(-(10**6)).add(taken(2))
    assert usage(log).spent.wall_ms == 0


def test_step_that_starts_again_after_it_did_not_happen_holds_once() -> None:
    log = fresh().add(started("a", kind="tool"))
    log.add(StepOutcomeUnknown(step_id=StepId("a"), sent_digest=digest("a"), sent_at=1))
    log.add(StepResolved(step_id=StepId("a"), outcome="not_happened", by=ANA.principal, note="looked at it"))
    assert usage(log.add(started("a", kind="tool"))).reserved.tokens == 1000


# What is left.


def state_with(*payloads: Payload) -> StoryState:
    log = fresh()
    for payload in payloads:
        log.add(payload)
    return log.state


def limited(**limits: int) -> Budgets:
    return Budgets(story=BudgetLimits.model_validate({"tokens": 10**6} | limits))


@pytest.mark.rule("MB-22")
def test_call_is_lowered_to_what_the_tightest_scope_leaves_and_reserved_with_that() -> None:
    found = allow_call(state_with(), limited(tokens=600), NEED, now_ms=0)
    assert (found.max_tokens, found.reserve.tokens, found.reserve.output_tokens) == (500, 600, 500)
    assert [w.limit for w in found.warnings] == ["tokens"]
    whole = allow_call(state_with(), Budgets(), NEED, now_ms=0)
    assert (whole.max_tokens, whole.warnings) == (700, ())


@pytest.mark.rule("MB-22")
@pytest.mark.parametrize(
    ("limits", "quantity"),
    [
        ({"tokens": 355}, "tokens"),
        ({"output_tokens": 255}, "output_tokens"),
        ({"calls": 0}, "calls"),
        ({"cost_microusd": 611}, "cost_microusd"),
        ({"gpu_ms": 0}, "gpu_ms"),
    ],
)
def test_call_that_a_limit_cannot_hold_is_refused_and_named(limits: dict[str, int], quantity: str) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        allow_call(state_with(), limited(**limits), replace(NEED, price=PRICE), now_ms=0)
    details = caught.value.details
    assert (details["kind"], details["id"], details["quantity"]) == ("story", STORY, quantity)
    exhausted = exhaustion_of(caught.value)
    assert exhausted is not None
    assert (exhausted.scope, exhausted.limit, exhausted.max) == (SCOPE, quantity, limits[quantity])


@pytest.mark.rule("MB-20")
def test_money_lowers_the_reply_and_the_dearest_price_is_held() -> None:
    from dataclasses import replace

    found = allow_call(state_with(), limited(cost_microusd=700), replace(NEED, price=PRICE), now_ms=0)
    assert (found.max_tokens, found.reserve.cost_microusd) == (300, 700)
    free = Price(in_microusd_per_mtok=1_000_000, out_microusd_per_mtok=0)
    found = allow_call(state_with(), limited(cost_microusd=700), replace(NEED, price=free), now_ms=0)
    assert (found.max_tokens, found.reserve.cost_microusd) == (700, 100)
    with pytest.raises(BudgetExceeded):
        allow_call(state_with(), limited(cost_microusd=99), replace(NEED, price=free), now_ms=0)
    assert dearest([free, PRICE]) == PRICE
    assert dearest([]) is None
    assert cost_of(PRICE, tokens_in=0, tokens_out=0) == 0


def test_step_and_outer_scopes_bind_too_and_are_no_event_of_the_story() -> None:
    with pytest.raises(BudgetExceeded) as caught:
        allow_call(state_with(), Budgets(step=BudgetLimits(tokens=300)), NEED, now_ms=0)
    assert caught.value.details["kind"] == "step"
    assert exhaustion_of(caught.value) is None
    from fleet.models.routing.budget import BudgetTotals

    platform = BudgetScope(kind="platform", id="main")
    outer = {platform: (BudgetTotals(spent=Spend(tokens=10)), BudgetLimits(tokens=10))}  # pyright: ignore[reportUnhashable]
    with pytest.raises(BudgetExceeded, match="platform budget"):
        allow_call(state_with(), Budgets(), NEED, now_ms=0, outer=outer)


@pytest.mark.rule("MB-25")
def test_warning_is_said_once_per_limit_and_again_for_another_one() -> None:
    warned = BudgetWarning(scope=SCOPE, limit="tokens", used=800, max=900)
    state = state_with(warned)
    assert allow_call(state, limited(tokens=900), NEED, now_ms=0).warnings == ()
    assert [w.max for w in allow_call(state, limited(tokens=950), NEED, now_ms=0).warnings] == [950]


@pytest.mark.rule("MB-24")
def test_limits_are_those_that_were_set_and_a_council_has_those_it_was_opened_with() -> None:
    log = story(until="task")
    scope = BudgetScope(kind="council", id=TASK_COUNCIL)
    opened = log.state.councils[TASK_COUNCIL].opened.budget
    found = limits_of(log.state, Budgets(council=BudgetLimits(tokens=10**9, calls=3)), scope)
    assert (found.tokens, found.calls, found.wall_ms) == (opened.tokens, 3, opened.wall_s * 1000)
    log.add(BudgetSet(scope=scope, limits={"tokens": 5}, by=ANA.principal))
    assert limits_of(log.state, Budgets(), scope) == BudgetLimits(tokens=5)
    lines = budget_lines(log.state, Budgets())
    assert ("council", TASK_COUNCIL, "tokens", 5) in [(x.scope, x.id, x.quantity, x.limit) for x in lines]
    assert all(line.left is None or line.left >= 0 for line in lines)
    assert len(budget_lines(log.state, None)) < len(lines)


@pytest.mark.rule("MB-25", "RT-30")
def test_used_up_limits_close_the_story_for_runs_and_for_calls_of_others() -> None:
    state = state_with(started("a"), finished("a"))
    over = used_up(state, limited(tokens=300), role="qa", task_id=None, now_ms=0)
    assert over is not None
    assert "the story budget of 300 tokens is used up (300 used)" in over.message
    assert used_up(state, limited(tokens=301), role="qa", task_id=None, now_ms=0) is None
    held = state_with(started("a"), finished("a"), started("b"))
    assert used_up(held, limited(tokens=301), role="qa", task_id=None, now_ms=0) is None
    require_room(state, limited(tokens=300), task_id=None, now_ms=0, quantities=("wall_ms",))
    with pytest.raises(BudgetExceeded):
        require_room(state, limited(tokens=300), task_id=None, now_ms=0)


@pytest.mark.rule("MB-23")
def test_started_call_is_made_again_while_what_was_lost_with_it_fits() -> None:
    log = fresh().add(started("s-1"))
    allow_again(log.state, limited(tokens=1000), NEED, now_ms=0)
    log.add(taken(2))
    with pytest.raises(BudgetExceeded):
        allow_again(log.state, limited(tokens=1000), NEED, now_ms=0)


# Setting budgets.


def set_by(caller: Caller, state: StoryState, config: Budgets, **limits: int | None) -> Any:
    change = change_of(state, config, parse_scope(state, "story", None), limits)
    consent = request_raise(
        state, fsm(), change, approval_id=EntityId("ap-raise1"), card=digest("card"), caller=caller, now_ms=0
    )
    return set_budget(state, fsm(), change, caller=caller, now_ms=0, consent=consent)


@pytest.mark.rule("MB-24")
def test_lower_limit_counts_at_once_and_keeps_the_others() -> None:
    (found,) = set_by(ROOT, state_with(), limited(calls=9), tokens=5)
    assert found.limits == {"tokens": 5, "calls": 9}
    assert found.approval_id is None


@pytest.mark.rule("MB-24")
def test_person_in_role_po_raises_with_a_consent_on_record_and_the_parked_story_goes_on() -> None:
    parked = StoryParked(cause="budget_exhausted", detail="used up")
    found = set_by(ANA, state_with(parked), limited(), tokens=2 * 10**6)
    assert [p.type for p in found] == ["ApprovalRequested", "ApprovalGranted", "BudgetSet", "StoryUnparked"]
    assert found[2].approval_id == "ap-raise1"
    other = StoryParked(cause="stuck", detail="no way")
    assert [p.type for p in set_by(ANA, state_with(other), limited(), tokens=None, gpu_ms=1)][-1] == "BudgetSet"


@pytest.mark.rule("MB-24")
def test_admin_alone_cannot_raise_until_a_person_in_role_po_said_yes_to_exactly_that() -> None:
    log = fresh()
    assert set_by(ROOT, log.state, limited(), tokens=2 * 10**6) == ConsentNeeded("po", None, 1)
    change = change_of(log.state, limited(), SCOPE, {"tokens": 2 * 10**6})
    request = request_raise(
        log.state, fsm(), change, approval_id=EntityId("ap-raise1"), card=digest("card"), caller=ROOT, now_ms=0
    )
    log.add(request)
    assert set_by(ROOT, log.state, limited(), tokens=2 * 10**6) == ConsentNeeded("po", EntityId("ap-raise1"), 2)
    log.add(
        ApprovalGranted(
            approval_id=EntityId("ap-raise1"),
            principal=ANA.principal,
            as_role="po",
            subject_digest=change.digest,
            grant_expires_at=10**15,
            delegated=False,
        )
    )
    (found,) = set_by(ROOT, log.state, limited(), tokens=2 * 10**6)
    assert found.approval_id == "ap-raise1"
    assert isinstance(set_by(ROOT, log.state, limited(), tokens=3 * 10**6), ConsentNeeded)


@pytest.mark.rule("MB-20", "MB-24")
def test_budget_that_makes_no_sense_or_is_not_the_callers_is_refused() -> None:
    state = state_with()
    dev = Caller(Principal("user:dev"), frozenset({"developer"}))
    with pytest.raises(PolicyDenied):
        set_by(dev, state, limited(), tokens=5)
    for limits in ({}, {"apples": 1}, {"tokens": -1}, {"tokens": None}):
        with pytest.raises(InvalidInput):
            change_of(state, limited(), SCOPE, limits)
    with pytest.raises(InvalidInput, match=r"models\.yaml"):
        parse_scope(state, "platform", None)
    for kind, name in (("task", "tk-none"), ("council", None), ("role", "")):
        with pytest.raises(NotFound):
            parse_scope(state, kind, name)
    assert parse_scope(state, "role", "qa").id == "qa"
    with pytest.raises(InvalidTransition):
        set_by(ANA, state_with(StoryCancelled(reason="enough of it")), limited(), tokens=5)
