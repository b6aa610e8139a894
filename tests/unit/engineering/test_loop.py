"""The loop of a session: what it wants next, what it tells, when it ends; by its state alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.engineering.loop import Ask, Carry, Over, after_outcome, after_reply, after_unusable, looks_ahead, next_step
from fleet.engineering.state import MAX_CALLS, Outcome, SeenKind, Session, SessionEnding, begin
from fleet.engineering.terms import SessionTerms, terms_for
from fleet.engineering.tools import TOOL_NAMES
from fleet.engineering.transcript import messages_of, prompt_tokens
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import Digest
from fleet.models.chat import TokenUsage, ToolUse
from fleet.models.replies.session_reply import SessionReply

BASE = digest_of(b"base")
TERMS = SessionTerms(window=32_768, output=4_096, turns=30)
USED = TokenUsage(tokens_in=1_000, tokens_out=50)


def head(name: str) -> Digest:
    return BASE if name == "base" else digest_of(name.encode())


def said(*calls: tuple[str, dict[str, Any]], text: str = "", is_cut: bool = False) -> SessionReply:
    uses = tuple(ToolUse(id=f"u{n}", name=name, arguments=json.dumps(args)) for n, (name, args) in enumerate(calls, 1))
    return SessionReply(text=text, is_cut=is_cut, uses=uses)


def turn(state: Session, reply: SessionReply, *outcomes: Outcome, usage: TokenUsage = USED) -> Session:
    """The state after this reply, each of its calls that had to be made with the next of these outcomes."""
    state = after_reply(state, reply, usage, latency_ms=1_000)
    left = list(outcomes)
    while isinstance(step := next_step(state), Carry):
        state = after_outcome(state, step.call, left.pop(0))
    assert not left, "an outcome was not asked for"
    return state


def look(text: str = "seen", *, at: str = "base", brief: str = "seen") -> Outcome:
    return Outcome("result", text, head(at), brief=brief)


def told(state: Session) -> str:
    return messages_of(state)[-1].content


READ = ("read", {"path": "a.py"})
RUN = ("run", {"command": "make"})
EDIT = ("edit", {"path": "a.py", "old": "x", "new": "y"})


def test_session_begins_with_a_question_and_makes_calls_in_their_order():
    state = begin(TERMS, BASE)
    assert next_step(state) == Ask(1)
    state = after_reply(state, said(READ, EDIT), USED, latency_ms=5)
    first = next_step(state)
    assert isinstance(first, Carry)
    assert (first.turn, first.number, first.call.name, first.head) == (1, 1, "read", BASE)
    state = after_outcome(state, first.call, look())
    second = next_step(state)
    assert isinstance(second, Carry)
    assert (second.number, second.call.name) == (2, "edit")
    state = after_outcome(state, second.call, Outcome("edit", "Edited a.py.", head("one")))
    assert next_step(state) == Ask(2)
    assert state.head == head("one")
    assert told(state).endswith("[turn 1 of 30; 0 % of the tokens used]")


def ahead(*calls: tuple[str, dict[str, Any]], before: Session | None = None) -> list[tuple[int, str]]:
    state = after_reply(before or begin(TERMS, BASE), said(*calls), USED, latency_ms=5)
    return [(carry.number, carry.call.name) for carry in looks_ahead(state)]


def test_calls_that_only_look_and_follow_one_another_are_a_row():
    search, files, symbols = ("search", {"pattern": "x"}), ("files", {}), ("symbols", {"name": "f"})
    assert ahead(READ, search, files, symbols) == [(1, "read"), (2, "search"), (3, "files"), (4, "symbols")]
    for ends in (EDIT, RUN, ("tests", {}), ("note", {"text": "n"}), ("submit", {"summary": "s"}), ("hammer", {})):
        assert ahead(READ, search, ends, files) == [(1, "read"), (2, "search")], ends
        assert ahead(ends, READ) == [], ends
    # One by itself is no row; an output that a search of the row may leave has no id yet; the same is not asked twice.
    assert ahead(READ, EDIT) == []
    assert ahead(search, files, ("read", {"output": "o1"}), READ) == [(1, "search"), (2, "files")]
    assert ahead(READ, files, READ) == [(1, "read"), (2, "files")]
    assert ahead(files, symbols, READ, before=turn(begin(TERMS, BASE), said(READ), look())) == [
        (1, "files"),
        (2, "symbols"),
    ]
    many = [("read", {"path": f"{n}.py"}) for n in range(MAX_CALLS + 2)]
    assert len(ahead(*many)) == MAX_CALLS


def test_row_of_looks_begins_with_the_call_that_comes_next():
    state = after_reply(begin(TERMS, BASE), said(EDIT, READ, RUN), USED, latency_ms=5)
    assert looks_ahead(begin(TERMS, BASE)) == looks_ahead(state) == ()
    state = after_reply(begin(TERMS, BASE), said(EDIT, READ, ("files", {})), USED, latency_ms=5)
    step = next_step(state)
    assert isinstance(step, Carry)
    state = after_outcome(state, step.call, Outcome("edit", "Edited.", head("one")))
    assert [(one.number, one.head) for one in looks_ahead(state)] == [(2, head("one")), (3, head("one"))]


def test_what_cannot_be_carried_out_is_answered_in_its_place():
    broken = ToolUse(id="u9", name="read", arguments="{not json")
    reply = SessionReply(uses=(*said(("hammer", {}), ("read", {}), ("edit", {"path": "a", "old": "x"})).uses, broken))
    state = turn(begin(TERMS, BASE), reply)
    answers = [message.content for message in messages_of(state)[1:]]
    assert "there is no tool 'hammer'; the tools are: run, read" in answers[0]
    assert "read takes either path or output" in answers[1]
    assert "edit needs new beside old" in answers[2]
    assert "not valid JSON" in answers[3]
    assert [message.tool_use_id for message in messages_of(state)[1:]] == ["u1", "u2", "u3", "u9"]


def test_calls_beyond_the_limit_of_a_reply_are_not_made():
    calls = [("read", {"path": f"f{n}.py"}) for n in range(MAX_CALLS + 3)]
    state = turn(begin(TERMS, BASE), said(*calls), *[look(f"{n}") for n in range(MAX_CALLS)])
    assert sum("a reply may hold 8 calls" in message.content for message in messages_of(state)) == 3


def test_transcript_only_grows_until_old_results_are_masked_at_once():
    state, before, masked = begin(TERMS.model_copy(update={"turns": 200}), BASE), (), 0
    for number in range(40):
        state = turn(state, said(("read", {"path": f"f{number}.py"})), look("x" * 2_400, brief="300 lines"))
        after = messages_of(state)
        if not state.masked or len(state.masked) == masked:
            assert after[: len(before)] == before
        else:
            assert len(state.masked) - masked > 5, "results are masked in batches"
            assert prompt_tokens(state) <= TERMS.window * 60 // 100
        before, masked = after, len(state.masked)
    assert masked
    assert messages_of(state)[1].content.startswith("[result of read 'f0.py': 300 lines]\n\n[turn 1 of 200;")
    assert "x" * 2_400 in messages_of(state)[-1].content


def test_edits_and_last_tests_are_never_masked():
    state = begin(TERMS.model_copy(update={"turns": 200}), BASE)
    state = turn(state, said(("tests", {})), Outcome("failure", "T" * 3_000, BASE, failure=head("f"), brief="exit 1"))
    state = turn(state, said(EDIT), Outcome("edit", "E" * 3_000, head("one")))
    for number in range(40):
        found = look("x" * 2_400, at="one", brief="300 lines")
        state = turn(state, said(("read", {"path": f"f{number}.py"})), found)
    assert state.masked
    texts = [message.content for message in messages_of(state)]
    assert any("T" * 3_000 in text for text in texts)
    assert any("E" * 3_000 in text for text in texts)


def test_engine_that_finds_the_prompt_too_long_gets_the_shortest_one():
    state = begin(TERMS, BASE)
    for number in range(12):
        state = turn(state, said(("read", {"path": f"f{number}.py"})), look("x" * 1_000, brief="b"))
    state = after_unusable(state, "too long", TokenUsage(), latency_ms=1, is_too_long=True)
    assert len(state.masked) == 2
    assert next_step(state) == Ask(14)


@pytest.mark.parametrize(
    ("terms", "ending"),
    [
        ({"turns": 3}, SessionEnding.TURNS_USED),
        ({"prompt_tokens": 3_000}, SessionEnding.TOKENS_USED),
        ({"output_tokens": 150}, SessionEnding.TOKENS_USED),
        ({"wall_s": 3}, SessionEnding.TIME_USED),
        ({"prompt": 28_000}, SessionEnding.CONTEXT_USED),
    ],
)
def test_each_budget_refuses_the_next_reply(terms: dict[str, int], ending: SessionEnding):
    state = begin(TERMS.model_copy(update=terms), BASE)
    for number in range(3):
        if isinstance(next_step(state), Over):
            break
        state = turn(state, said(("read", {"path": f"{number}"})), look(f"{number}"))
    assert next_step(state) == Over(ending)


def test_cached_tokens_count_a_tenth():
    usage = TokenUsage(tokens_in=1_000, tokens_out=5, tokens_cached=900)
    assert turn(begin(TERMS, BASE), said(READ), look(), usage=usage).spent.prompt_tokens == 190


def test_engineer_is_told_when_little_is_left_and_commands_end_with_the_time_of_the_sandbox():
    state = begin(TERMS.model_copy(update={"turns": 5, "sandbox_s": 10}), BASE)
    slow = Outcome("result", "done", BASE, wall_ms=10_000, sandbox_ms=10_000)
    for number in range(4):
        calls = [] if number else [slow]
        state = turn(state, said(("run", {"command": f"make {number}"})), *calls)
    assert "Little is left" in told(state)
    assert "the time in the sandbox is used" in told(state)


def test_same_call_on_the_same_files_is_answered_from_the_record_and_ends_the_session_the_fifth_time():
    state = begin(TERMS, BASE)
    for number in range(5):
        state = turn(state, said(RUN), *([look("same")] if number < 2 else []))
        if number == 2:
            assert "You made this very call in turn 1" in told(state)
    assert next_step(state) == Over(SessionEnding.SAME_CALL)


def test_same_call_is_pointed_out_in_the_third_turn_and_calls_of_one_reply_count_once():
    state = turn(begin(TERMS, BASE), said(*[RUN] * 8), look("same"), look("same"))
    assert isinstance(next_step(state), Ask), "one reply says nothing about the next"
    for number in (2, 3):
        state = turn(state, said(RUN))
        assert ("it can tell you nothing new" in told(state)) == (number == 3)
    state = turn(turn(state, said(RUN)), said(RUN))
    assert next_step(state) == Over(SessionEnding.SAME_CALL)


def test_call_that_is_made_again_after_a_change_is_made():
    state = turn(begin(TERMS, BASE), said(RUN, RUN), look("same"), look("same"))
    state = turn(state, said(EDIT, RUN), Outcome("edit", "Edited", head("one")), look("same", at="one"))
    assert "very call" not in told(state)


def test_same_failure_over_different_files_is_told_once_and_ends_the_session():
    state, nudges = begin(TERMS, BASE), 0
    for number in range(7):
        name = f"h{number}"
        failed = Outcome("failure", f"FAILED {number}", head(name), failure=head("failure"), brief="exit 1")
        state = turn(state, said(EDIT, RUN), Outcome("edit", "Edited", head(name)), failed)
        nudges += "The same failure came back" in told(state)
        assert nudges == (number >= 3)
    assert next_step(state) == Over(SessionEnding.SAME_FAILURE)


def test_files_that_come_back_to_what_they_were_are_told_and_end_the_session():
    state, seen = begin(TERMS, BASE), list[str]()
    for number in range(8):
        edit = ("edit", {"path": "a.py", "old": f"{number}", "new": "y"})
        state = turn(state, said(edit), Outcome("edit", "Edited", head("one" if number % 2 == 0 else "base")))
        seen.append(told(state))
        if isinstance(next_step(state), Over):
            break
    assert sum("undo your own changes" in text for text in seen) == 1
    assert next_step(state) == Over(SessionEnding.BACK_AND_FORTH)


def test_refused_edits_in_a_row_are_told_and_end_the_session():
    state = begin(TERMS, BASE)
    for number in range(6):
        edit = ("edit", {"path": "a.py", "old": f"{number}", "new": "y"})
        state = turn(state, said(edit), Outcome("refused", f"not there {number}", BASE))
        assert ("Several edits in a row were refused" in told(state)) == (number == 2)
    assert next_step(state) == Over(SessionEnding.REFUSED_EDITS)


def test_engineer_that_changes_nothing_for_long_or_tests_nothing_is_told():
    state = begin(TERMS, BASE)
    for number in range(10):
        state = turn(state, said(("read", {"path": f"{number}"})), look(f"{number}"))
    assert "A third of your turns is used and no file has changed" in told(state)
    for number in range(5):
        state = turn(state, said(EDIT), Outcome("edit", "Edited", head(f"{number}")))
    assert "without running the tests" in told(state)


def test_replies_without_a_call_are_answered_by_what_is_wrong_and_end_after_three():
    state = turn(begin(TERMS, BASE), said(text="I think", is_cut=True))
    assert "cut off at its length limit before a tool was called" in told(state)
    state = turn(state, said(text=""))
    assert "called no tool" in told(state)
    assert messages_of(state)[2].content == "(no words)"
    state = after_unusable(state, "Your last reply could not be used.", TokenUsage(), latency_ms=1)
    assert next_step(state) == Over(SessionEnding.NO_USABLE_REPLY)


def test_session_ends_with_its_second_submission_and_makes_no_call_after_it():
    submit = ("submit", {"summary": "all done"})
    state = turn(begin(TERMS, BASE), said(submit), Outcome("review", "Review", BASE))
    assert state.is_reviewed
    state = turn(state, said(submit, RUN), Outcome("note", "Submitted.", BASE, ends=True))
    assert next_step(state) == Over(SessionEnding.SUBMITTED)
    assert state.summary == "all done"


NAMES = st.sampled_from([*TOOL_NAMES, "hammer"])
ARGS = st.sampled_from(
    [{}, {"path": "a"}, {"command": "x"}, {"path": "a", "old": "b", "new": "c"}, {"pattern": "x"}, {"summary": "s"}]
)
REPLIES = st.builds(
    lambda calls, is_cut: said(*calls, is_cut=is_cut), st.lists(st.tuples(NAMES, ARGS), max_size=12), st.booleans()
)
KINDS: st.SearchStrategy[SeenKind] = st.sampled_from(["result", "failure", "edit", "refused", "review"])


@settings(max_examples=60)
@given(st.data())
def test_every_session_ends_within_its_terms_and_answers_every_use(data: st.DataObject):
    state, replies = begin(TERMS, BASE), 0
    while not isinstance(step := next_step(state), Over):
        if isinstance(step, Ask):
            replies += 1
            assert step.number == replies
            state = after_reply(state, data.draw(REPLIES), USED, latency_ms=1)
            continue
        kind = data.draw(KINDS)
        name = data.draw(st.sampled_from(["base", "one", "two"])) if kind == "edit" else ""
        where = head(name) if name else state.head
        failure = head("f") if kind == "failure" else None
        ends = step.call.name == "submit" and state.is_reviewed
        state = after_outcome(state, step.call, Outcome(kind, "text", where, failure=failure, brief="b", ends=ends))
    assert replies <= TERMS.turns
    for one in state.turns:
        assert one.reply is None or len(one.seen) == len(one.reply.uses)


@given(st.integers(1_024, 2_000_000), st.integers(1, 500_000))
def test_terms_leave_room_for_a_conversation_in_any_window(window: int, output: int):
    terms = terms_for(window=window, output=output, rigor="L1")
    assert terms.output + 2 * terms.largest_result < window
    assert terms.run_chars > 0
    assert terms.turns == 60
    assert terms_for(window=window, output=output, rigor="L3").turns == 120
