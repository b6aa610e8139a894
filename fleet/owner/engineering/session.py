"""A work session of one engineer: each reply, look, edit and command is a step on record.

The loop is pure (`fleet.engineering`), and its state is what the recorded steps make of it. Whoever goes on after a
crash asks for the same steps by the same names, so that no recorded reply is paid for again; a command that was under
way is asked for by its key, begins at the recorded files, and counts once.

    <step>/begin             PURE   the terms, fixed from here on
    <step>/<n>               PURE   the n-th reply
    <step>/<n>/call/<m>      PURE   a look or an edit: the files before and after
                             KEYED  a command: a run on the files as they were recorded last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from fleet.engineering.loop import Ask, Carry, Over, after_outcome, after_reply, after_unusable, next_step, over_budget
from fleet.engineering.state import Outcome, Session, SessionEnding, begin
from fleet.engineering.terms import SessionTerms
from fleet.engineering.tools import OFFERS, SessionCall
from fleet.engineering.transcript import messages_of
from fleet.events.step import StuckDetected
from fleet.events.values import StuckPattern
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import BudgetExceeded, ContextTooLarge, FleetError, PolicyDenied, ReplyMalformed, ReplyRefused
from fleet.kernel.ids import Digest, StepId
from fleet.models.chat import TokenUsage
from fleet.models.port import AgentRequest
from fleet.models.replies.session_reply import SessionReply
from fleet.models.routing.routing import estimate_tokens
from fleet.owner.engineering.desk import Desk
from fleet.owner.engineering.runs import RUNS, run_call
from fleet.owner.journal.step_records import cost_of_failure
from fleet.owner.journal.steps import Computed, Work
from fleet.owner.workbench import Workbench

_MAX_STEPS_NAMED = 20
_FRAME_TOKENS = 1_000
"""Rules and persona, which the agent puts before what the owner sends."""
STEP_OF: Mapping[str, str] = {
    "read": "files.read",
    "files": "files.list",
    "edit": "files.edit",
    "write": "files.edit",
    "submit": "files.diff",
    "run": "exec.run",
    "tests": "tests.pytest",
    "search": "search.text",
}
"""The operation that the policy decides on, by the tool of a session."""
_PATTERNS: dict[SessionEnding, StuckPattern] = {
    SessionEnding.SAME_CALL: "repeated_result",
    SessionEnding.SAME_FAILURE: "repeated_failure",
    SessionEnding.BACK_AND_FORTH: "alternating_calls",
    SessionEnding.REFUSED_EDITS: "repeated_failure",
    SessionEnding.NO_USABLE_REPLY: "no_usable_reply",
}


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who works, on what, and from which files on."""

    step: str
    """Its steps are named below it."""
    request: AgentRequest
    """Of kind `engineer`, without tools and turns: the prompt of the first reply."""
    work: Work
    """Seat, council and task; tool and op are those of each step."""
    base: Digest
    terms: SessionTerms


class Worked(NamedTuple):
    """What a session left."""

    head: Digest
    reason: SessionEnding
    summary: str
    tokens: int
    """Of prompts and replies together, as the engines counted them."""


async def work_session(bench: Workbench, given: Assignment) -> Worked:
    """The files that the engineer submitted, or had come to when the session ended.

    Raises:
        BudgetExceeded: the story or its task can pay for no further reply; the session goes on once it can.
        ModelUnavailable, ModelTimeout, SandboxUnavailable, StoreUnavailable: later; what is on record holds.
    """
    loop = await _Loop.opened(bench, given)
    state = begin(loop.terms, loop.base)
    while True:
        match next_step(state):
            case Ask(number):
                state = await loop.ask(state, number)
            case Carry() as carry:
                outcome = await loop.carry_out(state, carry)
                state = after_outcome(state, carry.call, outcome)
            case Over(reason):
                await loop.record_stuck(reason, state)
                return Worked(state.head, reason, state.summary, loop.tokens)


_ALL_TESTS = SessionCall(name="tests", args={})


def _tested(review: Outcome, tests: Outcome) -> Outcome:
    """The review of a submission whose author left its last change untested, with the tests that ran for it."""
    told = f"{review.text}\nThe tests had not run since your last change; they ran now: {tests.text}"
    return replace(review, text=told, wall_ms=tests.wall_ms, sandbox_ms=tests.sandbox_ms)


class _Loop:
    """The steps of one session."""

    def __init__(self, bench: Workbench, given: Assignment, terms: SessionTerms, base: Digest) -> None:
        self._bench, self._is, self.terms, self.base = bench, given, terms, base
        self._desk, self.tokens = Desk(bench.blobs), 0

    @classmethod
    async def opened(cls, bench: Workbench, given: Assignment) -> _Loop:
        """The session with the terms that are on record for it: an engine that changes meanwhile changes nothing."""
        texts = (*given.request.texts, *(offer.model_dump_json() for offer in OFFERS))
        terms = given.terms.model_copy(update={"prompt": estimate_tokens("".join(texts)) + _FRAME_TOKENS})

        async def fixed() -> Computed:
            return Computed({"terms": terms.model_dump(mode="json"), "base": given.base}, (given.base, given.base))

        work = replace(given.work, tool="files", op="list")
        request = digest_of_json({"base": given.base})
        found = await bench.journal.compute(f"{given.step}/begin", request, work, fixed)
        return cls(bench, given, SessionTerms.model_validate(found["terms"]), Digest(found["base"]))

    async def ask(self, state: Session, number: int) -> Session:
        """The next reply is on record, or that the engine gave none."""
        sampling = self._is.request.sampling.model_copy(update={"max_tokens": self.terms.output})
        request = replace(self._is.request, tools=OFFERS, turns=messages_of(state), sampling=sampling)
        work = replace(self._is.work, tool="model", op="engineer", about=f"turn {number} of {self.terms.turns}")
        try:
            answer = await self._bench.journal.ask(f"{self._is.step}/{number}", request, work)
        except (ReplyRefused, ReplyMalformed, ContextTooLarge) as error:
            return self._without_reply(state, error)
        except BudgetExceeded as error:
            # A council decides on what its members left; everything else waits for a person to raise the limit.
            if error.details.get("kind") not in ("council", "step"):
                raise
            return over_budget(state)
        self.tokens += answer.usage.tokens_in + answer.usage.tokens_out
        reply = SessionReply.model_validate(answer.value)
        return after_reply(state, reply, answer.usage, latency_ms=answer.latency_ms)

    def _without_reply(self, state: Session, error: FleetError) -> Session:
        cost = cost_of_failure(error)
        usage = TokenUsage(tokens_in=cost.tokens_in, tokens_out=cost.tokens_out, tokens_cached=cost.tokens_cached)
        self.tokens += cost.tokens_in + cost.tokens_out
        is_too_long = isinstance(error, ContextTooLarge)
        problem = "The conversation was too long for the engine; older results are left out now. Go on."
        problem = problem if is_too_long else "Your last reply could not be used. Call a tool."
        return after_unusable(state, problem, usage, latency_ms=cost.latency_ms, is_too_long=is_too_long)

    async def carry_out(self, state: Session, carry: Carry) -> Outcome:
        """The call was carried out or refused by the policy, and that is on record."""
        step = f"{self._is.step}/{carry.turn}/call/{carry.number}"
        told, denied = "", f"{step}/denied"
        if denied not in self._bench.state.steps:
            try:
                return await self._made(state, carry.call, step)
            except PolicyDenied as error:
                told = f"Not allowed: {error.message}. Do it another way, or say in your summary what is missing."

        async def refused() -> Computed:
            return Computed({"text": told})

        # The refusal is the result, and stays so under another policy: what came after it was done without the call.
        work = replace(self._is.work, tool="files", op="list", about=f"{carry.call.name} is not allowed")
        found = await self._bench.journal.compute(denied, carry.call.digest, work, refused)
        return Outcome("result", found["text"], state.head)

    async def _made(self, state: Session, call: SessionCall, step: str) -> Outcome:
        if call.name in RUNS:
            return await self._run(state, call, step)
        outcome = await self._compute(state, call, step)
        if outcome.kind != "review" or state.is_tested or state.head == state.base:
            return outcome
        return _tested(outcome, await self._run(state, _ALL_TESTS, f"{step}/tests"))

    async def _run(self, state: Session, call: SessionCall, step: str) -> Outcome:
        tree = await self._desk.tree(state.head)
        return await run_call(self._bench, step, self._work_of(call), call, state, tree)

    async def _compute(self, state: Session, call: SessionCall, step: str) -> Outcome:
        """A look or an edit: a function of the files and of the arguments."""
        ends = call.name == "submit" and state.is_reviewed

        async def effect() -> Computed:
            if ends:
                return Computed({"kind": "note", "text": "Submitted.", "head": state.head, "brief": ""})
            looked = await self._desk.carry_out(call, state)
            result = {"kind": looked.kind, "text": looked.text, "head": looked.head, "brief": looked.brief}
            return Computed(result, (state.head, looked.head))

        request = digest_of_json({"call": call.model_dump(mode="json"), "head": state.head})
        found = await self._bench.journal.compute(step, request, self._work_of(call), effect)
        return Outcome(found["kind"], found["text"], Digest(found["head"]), brief=found["brief"], ends=ends)

    def _work_of(self, call: SessionCall) -> Work:
        tool, _, op = STEP_OF[call.name].partition(".")
        args = {"argv": ["bash", "-c", call.text("command")]} if call.name == "run" else {}
        return replace(self._is.work, tool=tool, op=op, args=args, about=f"{call.name} {call.about}".strip())

    async def record_stuck(self, reason: SessionEnding, state: Session) -> None:
        """The pattern is on record; what the session left goes on as it is (MB-41)."""
        task_id = self._is.work.task_id
        if reason not in _PATTERNS or task_id is None:
            return
        steps = tuple(StepId(f"{self._is.step}/{number}") for number in range(1, len(state.turns) + 1))
        stuck = StuckDetected(task_id=task_id, pattern=_PATTERNS[reason], steps=steps[-_MAX_STEPS_NAMED:], level=1)
        await self._bench.journal.record(f"{self._is.step}/stuck", stuck)
