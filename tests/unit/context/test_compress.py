"""A compressed session is far shorter and has lost nothing that matters (CX-50..CX-58)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sessions import LongSession, found_in, generated, recorded
from fleet.context.compress import PROSE, compress, recall_of, with_prose
from fleet.context.extract import facts_of, ids_in, paths_in
from fleet.context.session import FACT_CLASSES, HistoryTurn

SIZES = (8000, 9000, 12_000, 20_000, 40_000)
SESSIONS = [generated(seed, tokens=SIZES[seed % len(SIZES)]) for seed in range(20)]


@pytest.mark.rule("CX-51", "CX-52", "CX-54", "CX-58")
@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.name)
def test_generated_session_keeps_all_that_was_planted_in_two_fifths_of_the_tokens(session: LongSession) -> None:
    found = compress(session.turns)
    assert found_in(found.text, session) == dict.fromkeys(session.facts, 1.0)
    assert found.tokens_before >= 8000
    assert found.ratio >= 0.8
    assert found.target_missed is None
    assert set(found.recall.values()) == {1.0}


@pytest.mark.rule("CX-51", "CX-52")
@pytest.mark.parametrize("example", ["demo", "inflection"])
def test_recorded_story_keeps_criteria_constraints_decisions_ids_and_paths(example: str) -> None:
    session = recorded(example)
    found = compress(session.turns)
    assert {"criterion", "constraint", "decision", "id", "path"} <= {k for k, items in session.facts.items() if items}
    assert set(found_in(found.text, session).values()) == {1.0}
    assert found.ratio >= 0.8


@pytest.mark.rule("CX-54")
def test_recall_notices_every_line_that_is_taken_out_of_a_ledger() -> None:
    session = generated(3, tokens=8000)
    lines = compress(session.turns).ledger.splitlines()
    for n, line in enumerate(lines):
        if line and not line.startswith("## "):
            cut = "\n".join([*lines[:n], *lines[n + 1 :]])
            assert min(recall_of(session.turns, cut).values()) < 1, line


def turn(kind: str, text: str, **named: str) -> HistoryTurn:
    return HistoryTurn(version=1, kind=kind, text=text, **named)  # type: ignore[arg-type]


def kept(*turns: HistoryTurn) -> list[tuple[str, str]]:
    return [(fact.kind, fact.line) for fact in facts_of(turns)]


@pytest.mark.rule("CX-52", "CX-57")
def test_failure_that_a_later_run_took_back_is_no_failure() -> None:
    bad = turn(
        "run", "collected 2\nE   ValueError: no\nFAILED tests/test_a.py::test_b - no", id="pytest", status="failed"
    )
    good = turn("run", "2 passed", id="pytest", status="passed")
    other = turn("run", "all well", id="lint", status="passed")
    assert kept(bad, good, other) == []
    assert kept(good, bad) == [("failure", "pytest fails: E   ValueError: no"), ("failure", "tests/test_a.py::test_b")]
    assert kept(turn("run", "", status="failed")) == [("failure", "failed")]


def test_decision_has_its_last_status_and_answered_question_is_closed() -> None:
    first, last = (turn("decision", "Use a queue", id="de-1a", status=s) for s in ("PROPOSED", "ACCEPTED"))
    asked = turn("question", "How long?", id="qu-1", status="open")
    assert kept(first, asked, last) == [("decision", "de-1a [ACCEPTED]: Use a queue"), ("question", "qu-1: How long?")]
    assert kept(asked, turn("answer", "two days"), turn("question", "How long?", id="qu-1", status="answered")) == [
        ("instruction", "two days")
    ]


def test_step_without_an_end_is_a_promise() -> None:
    begun = turn("step", "push the branch", id="push/1", status="started")
    assert kept(begun) == [("promise", "push/1 is not finished: push the branch")]
    assert kept(begun, turn("step", "", id="push/1", status="finished")) == []


def test_sections_of_a_prompt_are_facts_and_code_in_it_is_none() -> None:
    text = (
        "## Acceptance criteria\n- ac-1: it adds\n\n## Open questions\nWhich one?\n\n"
        "## Notes\nIt must stay small. Fine.\n"
        "```python\nTODO = 'decided'\n```\nWe decided to wait. Plain words."
    )
    assert kept(turn("prompt", text)) == [
        ("criterion", "ac-1: it adds"),
        ("question", "Which one?"),
        ("constraint", "It must stay small."),
        ("decision", "We decided to wait."),
    ]


def test_paths_and_ids_are_told_from_what_looks_like_them() -> None:
    text = "see ./src/a.py, b/lib/c.ts:12 and /usr/lib/x.py, site-packages/y/z.py; v1.2.3 of tk-a1-b2, not xtk-1"
    assert paths_in(text) == ("src/a.py", "b/lib/c.ts")
    assert paths_in("diff --git a/src/b.py b/src/b.py\n--- a/src/b.py\n+++ b/src/b.py\n+c.py") == ("src/b.py", "c.py")
    assert ids_in(text) == ("tk-a1-b2",)


def test_repeated_output_and_passing_runs_leave_a_line() -> None:
    turns = [turn("run", "ok\n" * 500, id="pytest", status="passed")] * 9 + [
        turn("file", "x = 1\n" * 900, id="src/a.py")
    ]
    found = compress(turns)
    assert "- pytest: 9 passed, 0 failed" in found.summary
    assert "- src/a.py read, " in found.summary
    assert found.ratio > 0.9


@pytest.mark.rule("CX-55")
def test_session_of_facts_alone_says_which_class_is_too_large() -> None:
    turns = [turn("human", f"Please keep number {n} of the list in mind when you go on with it.") for n in range(600)]
    found = compress(turns)
    assert found.target_missed == "instruction"
    assert set(found.recall.values()) == {1.0}


@pytest.mark.rule("CX-30", "CX-51")
def test_window_holds_the_last_turns_in_order_in_a_twentieth_of_the_session() -> None:
    turns = [HistoryTurn(n + 1, "reasoning", f"thought {n} about nothing at all") for n in range(400)]
    found = compress(turns)
    assert 0.04 < found.tokens_after / found.tokens_before < 0.06
    shown = found.window.splitlines()
    assert shown[-1] == "[reasoning] thought 399 about nothing at all"
    assert shown[1:] == sorted(shown[1:], key=lambda line: int(line.split()[2]))


@pytest.mark.rule("CX-31")
@pytest.mark.parametrize("same_event", [True, False])
def test_window_keeps_a_call_and_its_result_together_or_leaves_both_out(same_event: bool) -> None:
    lengths = set[int]()
    for words in range(1, 25):
        # The longer the results are, the sooner the room ends: at times just between a result and its call.
        turns = [
            one
            for n in range(200)
            for one in (
                HistoryTurn(2 * n, "prompt", f"call {n} asks for something"),
                HistoryTurn(2 * n + (not same_event), "reply", f"result {n} " + "of it " * words),
            )
        ]
        lines = compress(turns).window.splitlines()[1:]
        calls = [int(line.split()[2]) for line in lines if line.startswith("[prompt]")]
        results = [int(line.split()[2]) for line in lines if line.startswith("[reply]")]
        assert calls == results == list(range(200 - len(calls), 200))
        lengths.add(len(calls))
    assert len(lengths) >= 3, "the window was cut at different places"


def test_empty_session_is_an_empty_result() -> None:
    found = compress([])
    assert (found.ledger, found.summary, found.window, found.ratio, found.tokens_after) == ("", "", "", 0.0, 0)


KIND_LIST = "human criterion decision question answer prompt reply tool run diff file step"
KINDS = st.sampled_from(KIND_LIST.split())
PIECES = ["## Decisions", "```", "de-1a", "a/b/c.py", "./x.md", "must", "?", "E   KeyError: x", "- ", "\n", "b/x/y.py"]
TEXTS = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(PIECES)), max_size=8).map(" ".join)
TURNS = st.lists(
    st.builds(
        HistoryTurn,
        version=st.integers(1, 9),
        kind=KINDS,
        text=TEXTS,
        id=st.sampled_from(["", "de-1a", "src/a.py", "pytest"]),
        status=st.sampled_from(["", "open", "answered", "passed", "failed", "started", "finished"]),
    ),
    max_size=12,
)


@pytest.mark.rule("CX-52", "CX-54")
@given(TURNS)
@settings(max_examples=200, deadline=None)
def test_any_session_is_compressed_with_full_recall_and_always_alike(turns: list[HistoryTurn]) -> None:
    found = compress(turns)
    assert dict.fromkeys(FACT_CLASSES, 1.0) == found.recall
    assert recall_of(turns, found.text) == found.recall
    assert compress(turns) == found


@pytest.mark.rule("CX-53", "CX-56")
def test_words_of_a_model_are_marked_and_leave_the_ledger_alone() -> None:
    turns = generated(seed=1, tokens=9_000).turns
    plain = compress(turns)
    told = with_prose(plain, turns, "## Decisions\n- none: two ways were tried,\n\nand the second one works.")
    assert told is not None
    assert (told.ledger, told.window) == (plain.ledger, plain.window)
    assert f"{PROSE}\nDecisions - none: two ways were tried, and the second one works.\n" in told.text
    assert told.is_whole
    assert told.ratio >= 0.6
    assert told.tokens_after > plain.tokens_after
    assert told.digest != plain.digest


@pytest.mark.rule("CX-56")
@pytest.mark.parametrize("prose", ["See de-inventedbyme7 too.", "It is in src/never/there.py.", "", " \n# "])
def test_words_that_name_what_the_turns_do_not_are_not_used(prose: str) -> None:
    turns = generated(seed=1, tokens=9_000).turns
    assert with_prose(compress(turns), turns, prose) is None


@pytest.mark.rule("CX-51", "CX-56")
def test_words_that_make_a_session_miss_its_target_are_not_used() -> None:
    turns = generated(seed=1, tokens=9_000).turns
    assert with_prose(compress(turns), turns, "and then it went on as before " * 2_000) is None
