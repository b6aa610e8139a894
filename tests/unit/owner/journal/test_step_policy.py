"""What the policy says of a step is remembered only where nothing but the step decides it (RT-30, RT-31)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.kernel.ids import Principal
from fleet.owner.journal.steps import StepPolicy
from fleet.policy.capabilities import PRODUCT_OPS
from fleet.policy.rules.calls import Allowed, NeedsApproval
from tests.support.rules import step_policy
from tests.support.story_events import story

STATES = [story(until=stage).state for stage in ("base", "closed")]
ASKS = '{"id": "asks-first", "effect": "ask", "origin": "product", "roles": ["devops"], "calls": ["deploy.release"]}'


@pytest.mark.rule("RT-31")
def test_remembered_decision_is_that_of_a_policy_that_remembers_nothing() -> None:
    kept, now_ms = replace(step_policy()), 0
    roles = kept.policy.roles.roles
    operations = [c for c in kept.policy.capabilities.values() if c.tool in (*PRODUCT_OPS, "deploy", "git")]
    for state in STATES:
        for role in sorted(roles):
            for each in operations:
                asked = (state, each.tool, each.op)
                seat = {"principal": Principal(f"agent:{role}-001"), "role": role, "args": {}, "now_ms": now_ms}
                first = kept.decide_step(*asked, **seat)
                fresh = StepPolicy(kept.policy, kept.fsm).decide_step(*asked, **seat)
                assert kept.decide_step(*asked, **seat) == first == fresh


@pytest.mark.rule("RT-34")
def test_step_that_a_person_has_to_allow_is_decided_each_time() -> None:
    policy, state = replace(step_policy(ASKS)), STATES[0]
    devops = Principal("agent:devops-001")

    def decide(now_ms: int) -> object:
        return policy.decide_step(state, "deploy", "release", principal=devops, role="devops", args={}, now_ms=now_ms)

    first, again = decide(0), decide(1)
    assert isinstance(first, NeedsApproval)
    assert first == again
    assert first is not again


def test_decision_about_a_step_with_arguments_is_not_that_of_another() -> None:
    policy, state = replace(step_policy()), STATES[0]
    devops = Principal("agent:devops-001")

    def decide(args: dict[str, str]) -> object:
        return policy.decide_step(state, "deploy", "apply", principal=devops, role="devops", args=args, now_ms=0)

    bare, one, other = decide({}), decide({"x": "1"}), decide({"x": "2"})
    assert isinstance(bare, Allowed)
    assert isinstance(one, Allowed)
    assert isinstance(other, Allowed)
    assert len({bare.request_digest, one.request_digest, other.request_digest}) == 3
    assert decide({}) is bare
