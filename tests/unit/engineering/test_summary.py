"""A conversation that no longer fits is summarised once, and goes on from there; circles of summaries end it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.engineering.loop import (
    Ask,
    Carry,
    Over,
    Recall,
    after_facts,
    after_outcome,
    after_reply,
    after_summary,
    after_unusable,
    next_step,
)
from fleet.engineering.state import Outcome, Session, SessionEnding, begin, with_heard
from fleet.engineering.summary import REQUEST, asked_for_summary
from fleet.engineering.terms import SessionTerms
from fleet.engineering.transcript import messages_of, prompt_tokens
from fleet.events.codec import decode
from fleet.events.step import SessionEnded, StuckDetected
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ContextTooLarge, FleetError
from fleet.models.chat import TokenUsage
from fleet.models.port import AgentRequest
from tests.support.acting import COUNCIL, Crash, MortalLog
from tests.support.bench import ScriptedAgents
from tests.support.sessions import SessionWorld, reply_of, told, turn_of
from tests.unit.engineering.test_loop import BASE, EDIT, USED, head, said, turn

TERMS = SessionTerms(window=16_384, output=1_024, turns=200, prompt=2_000)


def crowded(state: Session) -> Session:
    """The session after edits, which are never masked, until there is no room for a reply."""
    for number in range(200):
        if not isinstance(step := next_step(state), Ask) or step.is_summary:
            return state
        state = turn(
            state, said(EDIT), Outcome("edit", f"E{number} " + "e" * 3_000, head(f"{number}-{len(state.turns)}"))
        )
    raise AssertionError("there was always room")


def test_full_conversation_becomes_a_summary_with_what_the_program_knows():
    state = turn(begin(TERMS, BASE), said(("note", {"text": "plan: fold first"})))
    state = turn(state, said(("tests", {})), Outcome("failure", "1 failed: t::one", BASE, failure=head("f"), brief="x"))
    state = crowded(with_heard(state, "A person says: keep the name."))
    before = messages_of(state)
    asked = asked_for_summary(before)
    assert asked[: len(before)] == before
    assert asked[-1].content == REQUEST
    step = next_step(state)
    assert step == Ask(len(state.turns) + 1, is_summary=True)
    state = after_summary(state, "Done: slug.py. Next act: fold.", USED, latency_ms=5)
    assert next_step(state) == Recall(len(state.turns))
    state = after_facts(state, "-old\n+new")
    words, facts = messages_of(state)
    assert (words.role, words.content) == ("assistant", "Done: slug.py. Next act: fold.")
    for part in (
        "plan: fold first",
        "A person says: keep the name.",
        "-old\n+new",
        "1 failed: t::one",
        "before your last",
    ):
        assert part in facts.content
    assert prompt_tokens(state) < TERMS.window * 50 // 100
    assert next_step(state) == Ask(len(state.turns) + 1)
    # What follows is appended: the prefix with the summary stays.
    after = turn(state, said(("read", {"path": "a"})), Outcome("result", "seen", state.head, brief="b"))
    assert messages_of(after)[:2] == (words, facts)


def test_second_summary_must_come_ten_turns_later():
    state = after_facts(after_summary(crowded(begin(TERMS, BASE)), "s", USED, latency_ms=5), "d")
    long = turn(state, said(EDIT), Outcome("edit", "e" * 40_000, head("x")))
    assert next_step(long) == Over(SessionEnding.SUMMARISED_AGAIN)
    for number in range(10):
        state = turn(state, said(("read", {"path": f"{number}"})), Outcome("result", "r", state.head, brief="b"))
    long = turn(state, said(EDIT), Outcome("edit", "e" * 40_000, head("x")))
    assert next_step(long) == Ask(len(long.turns) + 1, is_summary=True)


def test_prompt_that_is_itself_too_long_is_not_summarised():
    state = begin(TERMS.model_copy(update={"prompt": 16_000}), BASE)
    assert next_step(state) == Over(SessionEnding.CONTEXT_USED)


def test_engine_that_finds_the_prompt_too_long_masks_then_summarises_then_ends_with_its_files():
    state = turn(begin(TERMS, BASE), said(EDIT), Outcome("edit", "e", head("one")))

    def too_long(state: Session) -> Session:
        return after_unusable(state, "too long", TokenUsage(), latency_ms=1, is_too_long=True)

    state = too_long(state)
    assert next_step(state) == Ask(3)
    state = too_long(state)
    assert next_step(state) == Ask(4, is_summary=True)
    state = after_facts(after_summary(state, "", TokenUsage(), latency_ms=1), "")
    assert messages_of(state)[0].content == "(no summary was written)"
    assert next_step(state) == Ask(5)
    fine = turn(state, said(("read", {"path": "a"})), Outcome("result", "r", state.head, brief="b"))
    assert too_long(fine).too_long == 1
    state = too_long(state)
    assert next_step(state) == Over(SessionEnding.CONTEXT_USED)
    assert state.head == head("one")


WHAT: Any = st.sampled_from(["edit", "look", "nothing", "too_long"])


@given(st.lists(WHAT, min_size=20, max_size=60), st.sampled_from([10, 800, 3_000, 20_000]))
def test_every_session_ends_whatever_its_engine_says_of_the_length(what: list[str], size: int):
    state, asked, number = begin(TERMS.model_copy(update={"turns": 60}), BASE), 0, 0
    while not isinstance(step := next_step(state), Over):
        number += 1
        kind = what[number % len(what)]
        match step:
            case Recall():
                state = after_facts(state, "d" * size)
            case Carry():
                outcome = "edit" if kind == "edit" else "result"
                state = after_outcome(state, step.call, Outcome(outcome, "x" * size, digest_of(f"{number}".encode())))  # type: ignore[arg-type]
            case Ask():
                asked += 1
                assert step.number == len(state.turns) + 1
                if step.is_summary:
                    state = after_summary(state, "s" * size, USED, latency_ms=1)
                elif kind == "too_long":
                    state = after_unusable(state, "p", TokenUsage(), latency_ms=1, is_too_long=True)
                else:
                    calls = [] if kind == "nothing" else [("read", {"path": f"{number}"})]
                    state = after_reply(state, said(*calls), USED, latency_ms=1)
    assert asked <= 60


def forgetful(request: AgentRequest) -> dict[str, Any] | FleetError:
    """An engine that takes few tokens: it writes large files until it is asked for a summary, then submits."""
    last = request.turns[-1].content if request.turns else ""
    if sum(len(message.content) for message in request.turns) > 60_000:
        return ContextTooLarge("the prompt is too long", engine="e")
    if REQUEST in last:
        return {"text": "Done: f1 to f3. Next act: submit.", "is_cut": False, "uses": []}
    if any("Next act: submit." in message.content for message in request.turns):
        return reply_of([("submit", {"summary": "all is there"})], turn_of(request))
    number = turn_of(request)
    return reply_of([("write", {"path": f"f{number}.txt", "content": f"{number}\n" * 7_000})], number)


@pytest.mark.rule("MB-40", "MB-41")
async def test_circle_of_summaries_ends_the_session_with_its_files_and_is_on_record():
    def circling(request: AgentRequest) -> dict[str, Any]:
        if request.turns and REQUEST in request.turns[-1].content:
            return {"text": "Done: some files. Next act: write more.", "is_cut": False, "uses": []}
        number, is_after = turn_of(request), any("Next act: write" in message.content for message in request.turns)
        name = f"{'g' if is_after else 'f'}{number}.txt"
        return reply_of([("write", {"path": name, "content": f"{number}\n" * 7_000})], number)

    world = await SessionWorld((), max_context=60_000).begin()
    world.agents = ScriptedAgents(circling)
    assert {"f1.txt", "f2.txt"} <= set(await world.candidate(await world.deliver()))
    summaries = [request for request in world.agents.requests if request.turns and REQUEST in request.turns[-1].content]
    assert len(summaries) == 1
    payloads = [decode(event) for event in await world.events()]
    (ended,) = [p for p in payloads if isinstance(p, SessionEnded)]
    (stuck,) = [p for p in payloads if isinstance(p, StuckDetected)]
    assert (ended.reason, stuck.pattern) == ("summarised_again", "repeated_summary")
    assert stuck.steps[-1] == f"{COUNCIL}/draft/developer-001/{ended.turns}"


@pytest.mark.parametrize("stored", [True, False], ids=["after", "before"])
async def test_owner_killed_around_a_summary_comes_to_the_same_files_and_asks_the_same(stored: bool):
    plain = await SessionWorld((), max_context=60_000).begin()
    plain.agents = ScriptedAgents(forgetful)
    expected = await plain.deliver()
    assert any("Everything above was your own summary" in text for text in told(plain))
    assert set(await plain.candidate(expected)) >= {"f1.txt", "f2.txt"}
    requests = [request.turns for request in plain.agents.requests]
    assert isinstance(plain.log, MortalLog)
    summary = next(n for n, turns in enumerate(requests, 1) if turns and REQUEST in turns[-1].content)
    state = (await plain.journal()).state
    step = state.steps[f"{COUNCIL}/draft/developer-001/{summary}/call/1"]  # type: ignore[index]
    assert (step.started.effect, step.started.tool, step.started.op) == ("PURE", "files", "diff")
    for at in range(1, plain.log.count + 1):
        world = await SessionWorld((), MortalLog(at=at, stored=stored), max_context=60_000).begin()
        world.agents = ScriptedAgents(forgetful)
        with pytest.raises(Crash):
            await world.deliver()
        assert await world.deliver() == expected, at
        assert {request.turns for request in world.agents.requests} == set(requests), at
