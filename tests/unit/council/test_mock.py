"""Mock members: what each mode answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from fleet.council import MockCall, MockFailure, MockFixture, MockMode, MockReply, ShownCandidate, mock_mode, mock_reply
from fleet.errors import InvalidInput

FIXTURE = MockFixture(correct="def f(): return 1\n" * 4, wrong="def f(): return 2\n", tests="def test_f(): ...")
SHOWN = (
    ShownCandidate("A", "sha256:b", gates_ok=True, trusted_passed=1),
    ShownCandidate("B", "sha256:c", gates_ok=True, trusted_passed=3),
    ShownCandidate("C", "sha256:a", gates_ok=False, trusted_passed=3),
)


def call(mode: Any, kind: Any, *, attempt: int = 1, shown: Any = SHOWN, seed: int = 1) -> MockCall:
    return MockCall(mode, seed, "co-one1", "developer-001", kind, attempt, FIXTURE, shown)


def said(mode: Any, kind: Any, **changes: Any) -> Any:
    found = mock_reply(call(mode, kind, **changes))
    assert isinstance(found, MockReply)
    return found.content


def votes(mode: Any, **changes: Any) -> tuple[str, list[str]]:
    ballot = said(mode, "vote", **changes)
    return "".join(v["vote"][0] for v in ballot["votes"]), ballot["ranking"]


@pytest.mark.rule("CN-80")
def test_excellent_member_is_right_and_votes_by_evidence():
    assert said("excellent", "draft") == said("excellent", "repair") == FIXTURE.correct
    assert votes("excellent") == ("rar", ["B", "A", "C"])
    assert said("excellent", "tests") == FIXTURE.tests
    assert said("excellent", "critique")["severity"] == "major"


@pytest.mark.rule("CN-81")
def test_poor_member_is_wrong_and_votes_the_other_way_round():
    assert said("poor", "draft") == said("poor", "repair") == FIXTURE.wrong
    assert votes("poor") == ("ara", ["C", "A", "B"])


@pytest.mark.rule("CN-82")
def test_stubborn_member_never_changes_its_bytes_and_rejects_everything():
    assert said("stubborn", "draft") == said("stubborn", "repair", attempt=2)
    assert votes("stubborn") == ("rrr", ["C", "A", "B"])
    assert votes("stubborn", shown=SHOWN[::-1])[1] == ["C", "A", "B"]


@pytest.mark.rule("CN-83", "CN-84")
def test_verbose_and_concise_members_differ_in_length_and_tokens():
    long, plain, short = (mock_reply(call(m, "draft")) for m in ("verbose", "excellent", "concise"))
    assert isinstance(long, MockReply)
    assert isinstance(plain, MockReply)
    assert isinstance(short, MockReply)
    assert (long.tokens, short.tokens) == (5 * len(FIXTURE.correct) // 4, len(FIXTURE.correct) // 10)
    assert str(long.content).startswith(FIXTURE.correct)
    assert len(long.content) >= 5 * len(plain.content)
    assert {len(v["reason"]) for v in said("verbose", "vote")["votes"]} == {400}
    assert all(len(v["reason"].split()) < 20 for v in said("concise", "vote")["votes"])


@pytest.mark.rule("CN-85")
def test_error_prone_member_fails_every_second_call_in_three_ways():
    answers = [mock_reply(call("error_prone", "draft", attempt=n)) for n in range(1, 13)]
    bad = [a for a in answers if isinstance(a, MockFailure) or a.content != FIXTURE.correct]
    assert len(bad) == 6
    assert {a.code for a in bad if isinstance(a, MockFailure)} == {"model_timeout", "model_unavailable"}
    assert any(isinstance(a, MockReply) for a in bad)
    assert (answers[0] in bad) != (answers[1] in bad)


@pytest.mark.rule("CN-86")
def test_inconsistent_member_ranks_as_shown_so_that_reversing_reverses():
    assert votes("inconsistent") == ("aaa", ["A", "B", "C"])
    assert votes("inconsistent", shown=SHOWN[::-1]) == ("aaa", ["C", "B", "A"])
    assert {said("inconsistent", "draft", attempt=n) for n in range(12)} == {FIXTURE.correct, FIXTURE.wrong}


@pytest.mark.rule("CN-87")
def test_unknown_mode_is_refused_with_the_known_ones():
    assert mock_mode("poor") == "poor"
    with pytest.raises(InvalidInput) as caught:
        mock_mode("perfect")
    assert caught.value.details["allowed"] == list(get_args(MockMode))


@pytest.mark.parametrize("mode", get_args(MockMode))
@pytest.mark.parametrize("kind", ["draft", "vote", "critique"])
def test_same_call_gives_the_same_answer(mode: Any, kind: Any):
    first = call(mode, kind, attempt=3)
    assert mock_reply(first) == mock_reply(replace(first))
