"""Mock members: deterministic answers, good and bad, to test councils themselves (CN-80..CN-86)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fleet.council.ballot import MAX_REASON
from fleet.kernel.types import MockMode

MockKind = Literal["draft", "propose", "repair", "tests", "critique", "vote", "estimate"]
MockFailureCode = Literal["model_timeout", "model_unavailable"]
MALFORMED = "I am not sure what to answer."
_TOKENS: Mapping[MockMode, tuple[int, int]] = {"verbose": (5, 1), "concise": (2, 5)}
_PADDING = "This sentence only makes the answer longer. "


@dataclass(frozen=True, slots=True)
class MockFixture:
    """One correct and one wrong solution of a task, in the form in which a member answers; and its tests."""

    correct: str
    wrong: str
    tests: str = ""
    critique: str = "A case of the acceptance criteria fails."
    scale: tuple[int, ...] = (1, 2, 3, 5, 8, 13, 21)
    points: int = 3
    """The right estimate."""
    wrong_points: int = 21


@dataclass(frozen=True, slots=True)
class ShownCandidate:
    """A candidate as a ballot paper shows it."""

    label: str
    digest: str
    gates_ok: bool
    trusted_passed: int
    cluster_size: int = 1
    diff_lines: int = 0


@dataclass(frozen=True, slots=True)
class MockCall:
    """One call of a mock. The same call always gives the same answer; `attempt` counts the calls of one kind from 1."""

    mode: MockMode
    seed: int
    council_id: str
    member_id: str
    kind: MockKind
    attempt: int
    fixture: MockFixture
    shown: Sequence[ShownCandidate] = field(default=())
    """For a vote: candidates in the order of the paper."""

    def draw(self, *, of: int) -> int:
        """A number 0..of-1 that depends on seed, member, council and attempt only."""
        text = f"{self.seed}/{self.member_id}/{self.council_id}/{self.attempt}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % of


@dataclass(frozen=True, slots=True)
class MockReply:
    """Text of code and malformed replies, a value of structured ones; tokens as a model would have counted them."""

    content: str | dict[str, Any]
    tokens: int


@dataclass(frozen=True, slots=True)
class MockFailure:
    """The call failed as a real engine would have failed."""

    code: MockFailureCode


def mock_reply(call: MockCall) -> MockReply | MockFailure:
    """What the mock answers. Half of the calls of `error_prone` fail: every second one, beginning by seed (CN-85)."""
    if call.mode == "error_prone" and (failed := _failure(call)) is not None:
        return failed
    if call.kind == "vote":
        content: str | dict[str, Any] = _ballot(call)
    elif call.kind == "estimate":
        content = _estimate(call)
    elif call.kind == "critique":
        content = {"severity": "major", "problem": call.fixture.critique}
    else:
        content = _solution(call)
    times, by = _TOKENS.get(call.mode, (1, 1))
    return MockReply(content, max(1, len(call.fixture.correct) * times // (4 * by)))


def _failure(call: MockCall) -> MockReply | MockFailure | None:
    phase = _of_member(call)
    if (phase + call.attempt) % 2:
        return None
    answers = (MockFailure("model_timeout"), MockReply(MALFORMED, 8), MockFailure("model_unavailable"))
    return answers[(phase // 2 + call.attempt // 2) % len(answers)]


def _of_member(call: MockCall) -> int:
    """A number that is the same in all calls of one member."""
    text = f"{call.seed}/{call.member_id}/{call.council_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _estimate(call: MockCall) -> dict[str, Any]:
    """A value of the scale with its reason. Who is stubborn has one of its own, whatever the others said."""
    fixture = call.fixture
    is_wrong = call.mode == "poor" or (call.mode == "inconsistent" and bool(call.draw(of=2)))
    value = fixture.wrong_points if is_wrong else fixture.points
    if call.mode == "stubborn":
        value = fixture.scale[_of_member(call) % len(fixture.scale)]
    reason = "The parts that it touches are known."
    return {"value": value, "reason": (f"{reason} " + _PADDING * 9)[:400] if call.mode == "verbose" else reason}


def _solution(call: MockCall) -> str:
    fixture = call.fixture
    if call.kind == "tests":
        return fixture.tests
    if call.mode == "poor" or (call.mode == "inconsistent" and call.draw(of=2)):
        return fixture.wrong
    if call.mode == "verbose":
        return fixture.correct + "\n" + _PADDING * (1 + 4 * len(fixture.correct) // len(_PADDING))
    return fixture.correct


def _ballot(call: MockCall) -> dict[str, Any]:
    ranked = _ranking(call)
    approved = _approved(call)
    return {
        "votes": [
            {"label": c.label, "vote": "approve" if c.label in approved else "reject", "reason": _reason(call, c)}
            for c in call.shown
        ],
        "ranking": [c.label for c in ranked],
    }


def _worth(c: ShownCandidate) -> tuple[bool, int, int]:
    return (c.gates_ok, c.trusted_passed, c.cluster_size)


def _ranking(call: MockCall) -> list[ShownCandidate]:
    match call.mode:
        case "stubborn":
            return sorted(call.shown, key=lambda c: c.digest)
        case "inconsistent":
            # As shown: when the order is reversed, so is the ranking.
            return list(call.shown)
        case _:
            best_first = sorted(call.shown, key=lambda c: (*(-x for x in _worth(c)), c.diff_lines, c.digest))
            return best_first[::-1] if call.mode == "poor" else best_first


def _approved(call: MockCall) -> set[str]:
    match call.mode:
        case "stubborn":
            return set()
        case "inconsistent":
            return {c.label for c in call.shown}
        case _:
            best = max((_worth(c) for c in call.shown), default=None)
            good = {c.label for c in call.shown if c.gates_ok and _worth(c) == best}
            return {c.label for c in call.shown} - good if call.mode == "poor" else good


def _reason(call: MockCall, c: ShownCandidate) -> str:
    text = f"Gates {'pass' if c.gates_ok else 'fail'}; {c.trusted_passed} trusted tests pass."
    return (f"{text} " + _PADDING * MAX_REASON)[:MAX_REASON] if call.mode == "verbose" else text
