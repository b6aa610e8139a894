"""What a role said and did becomes turns, and a summary once it is long (CX-50)."""

from __future__ import annotations

import json

import pytest

from fleet.context.compress import compress
from fleet.context.history import CompressionRule, history_of, is_long, text_digests, turns_of
from fleet.context.session import HistoryTurn
from fleet.context.summary_text import outline_of
from fleet.events.approval import ApprovalRejected, ApprovalRequested
from fleet.kernel.ids import EntityId, Principal
from tests.support.context import context_config
from tests.support.story_events import DEVELOPER, StoryLog, digest, story

ARCHITECT = Principal("agent:architect-001")
PLANNER = Principal("agent:planner-001")
RULE = CompressionRule()


def long_story(steps: int, *, who: Principal = DEVELOPER, tokens: int = 100) -> StoryLog:
    log = story(until="planned")
    for number in range(steps):
        log.step(f"more/{number}", who=who, tokens=(900, tokens))
    return log


def of(log: StoryLog, role: str = "developer") -> list[HistoryTurn]:
    config = context_config()
    steps = history_of(log.state, config.roles_of(role))
    texts = {d: json.dumps({"value": {"summary": f"We will use {d.hex[:4]}.py"}}) for d in text_digests(steps)}
    return list(turns_of(log.state, steps, texts))


@pytest.mark.rule("CX-50")
@pytest.mark.parametrize(("steps", "tokens", "expected"), [(40, 100, False), (41, 100, True), (9, 900, True)])
def test_history_is_long_after_forty_steps_or_eight_thousand_tokens(steps: int, tokens: int, expected: bool) -> None:
    log = long_story(steps, who=PLANNER, tokens=tokens)
    before = story(until="planned").version
    found = [step for step in history_of(log.state, {"planner"}) if step.finished_version > before]
    assert len(found) == steps
    assert is_long(found, RULE, covered=0) is expected
    assert not is_long(found, RULE, covered=log.version), "what a summary covers does not count again"


def test_history_is_that_of_the_role_and_its_profiles_alone() -> None:
    log = long_story(2, who=PLANNER).step("own", who=ARCHITECT).step("other", who=DEVELOPER)
    seen = {step.started.as_role for step in history_of(log.state, context_config().roles_of("architect"))}
    assert {"architect", "planner"} <= seen
    assert "developer" not in seen


def test_answers_are_turned_into_words_and_files() -> None:
    log = story(until="created").step("code", who=DEVELOPER)
    step = history_of(log.state, {"developer"})[0]
    value = {
        "summary": "We must keep ids.\nSecond line.",
        "files": [{"path": "a.py", "content": "x = 1\n"}],
        "no": None,
    }
    turns = turns_of(log.state, [step], {digest("result code"): json.dumps({"value": value})})
    assert [(turn.kind, turn.id, turn.text) for turn in turns] == [
        ("reply", "", "summary: We must keep ids.\nSecond line.\nfiles: path: a.py"),
        ("diff", "a.py", "x = 1\n"),
    ]
    assert all(turn.version == step.finished_version > 1 for turn in turns)


@pytest.mark.parametrize("answer", ["no JSON at all", json.dumps(["a", {"b": 2}]), json.dumps({"value": "words"}), "{"])
def test_answers_of_any_form_keep_their_words(answer: str) -> None:
    log = story(until="created").step("code", who=DEVELOPER)
    steps = history_of(log.state, {"developer"})
    (turn,) = turns_of(log.state, steps, {digest("result code"): answer})
    assert turn.text
    assert turns_of(log.state, steps, {}) == (), "a blob that is gone leaves nothing"


@pytest.mark.rule("CX-52")
def test_runs_keep_what_failed_last_and_refusals_of_people_their_reasons() -> None:
    log = story(until="planned")
    log.step("t/1", kind="run", outcome="failed", excerpt="FAILED tests/test_a.py::test_b - ValueError: no")
    gate = next(p for _, p in story(until="planned").decoded if isinstance(p, ApprovalRequested))
    asked = gate.model_copy(update={"approval_id": EntityId("ap-again1")})
    log.add(asked)
    why = "the slug must keep its digits"
    rejected = {"approval_id": asked.approval_id, "principal": "user:ana", "as_role": "po", "reason": why}
    log.add(ApprovalRejected.model_validate({**rejected, "delegated": False}))
    log.step("t/2", who=DEVELOPER)
    text = compress(of(log)).text
    assert "tests/test_a.py::test_b" in text
    assert why in text


@pytest.mark.rule("CX-24")
def test_outline_shows_some_of_every_part_and_says_what_is_left_out() -> None:
    parts = [f"## Part {n}\n" + "\n".join(f"- line {i} of {n}" for i in range(size)) for n, size in enumerate((1, 200))]
    text = "\n\n".join(parts) + "\n"
    assert outline_of(text, tokens=10_000) == text
    shown = outline_of(text, tokens=100)
    assert "- line 0 of 0" in shown
    assert "- line 0 of 1" in shown
    assert "more lines are left out)" in shown
    assert len(shown.encode()) < 100 * 3 + 120
    kept = [line for line in shown.splitlines() if line.startswith("- ")]
    assert all(line in text.splitlines() for line in kept), "only whole lines"


@pytest.mark.rule("CX-20", "CX-50")
def test_what_was_told_counts_as_somebody_counted_it_and_what_was_said_as_its_engine_did() -> None:
    log = story(until="planned")
    log.step("developer-001/one", who=DEVELOPER)
    steps = history_of(log.state, {"developer"})
    said = sum(step.finished.cost.tokens_out for step in steps if step.finished and step.started.kind == "model")
    rule = RULE.model_copy(update={"tokens": said + 100})
    assert not is_long(steps, rule, covered=0, told=100)
    assert is_long(steps, rule, covered=0, told=101)
