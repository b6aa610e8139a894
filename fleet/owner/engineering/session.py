"""A work session of one engineer: each reply, look, edit and command is a step on record.

The loop is pure (`fleet.engineering`), and its state is what the recorded steps make of it. Whoever goes on after a
crash asks for the same steps by the same names, so that no recorded reply is paid for again; a command that was under
way is asked for by its key, begins at the recorded files, and counts once.

    <step>/begin             PURE   the terms, fixed from here on
    <step>/<n>               PURE   the n-th reply
    <step>/<n>/call/1        PURE   the changes so far, beside a reply that is the summary of what was said
    <step>/<n>/call/<m>/format  KEYED  what the formatter of the base says of a first submission
    <step>/<n>/told          PURE   what people said before the n-th reply; absent where they said nothing
    <step>/<n>/call/<m>      PURE   a look or an edit: the files before and after
                             KEYED  a command: a run on the files as they were recorded last

Looks that follow one another in a reply are made at once, and may be on record in another order than that of the reply.

The first turns of a fork are on record below the session that it was forked from. A session that a person stopped, or
whose council is over, ends where its records end: what was under way is given up, and nothing of it counts.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

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
    looks_ahead,
    next_step,
    over_budget,
)
from fleet.engineering.state import Outcome, Session, SessionEnding, begin
from fleet.engineering.terms import SessionTerms
from fleet.engineering.tools import OFFERS, SessionCall
from fleet.engineering.transcript import messages_for
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import (
    BudgetExceeded,
    ContextTooLarge,
    FleetError,
    ModelError,
    PolicyDenied,
    ReplyMalformed,
    ReplyRefused,
    Retry,
)
from fleet.kernel.ids import Digest, Principal
from fleet.models.chat import TokenUsage
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.models.replies.session_reply import SessionReply
from fleet.owner.engineering.course import Course
from fleet.owner.engineering.desk import Desk
from fleet.owner.engineering.runs import RUNS, Files, format_changes, lint_changes, run_call
from fleet.owner.journal.step_records import cost_of_failure
from fleet.owner.journal.steps import Computed, Work
from fleet.owner.tools.decisions import require_budget
from fleet.owner.tools.outside import look_outside, terms_as_offered
from fleet.owner.workbench import Workbench
from fleet.story.sessions.steps import step_of_turn

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0
"""Between two tries of an engine that limits or fails."""
_MAX_SAID = 300
STEP_OF: Mapping[str, str] = {
    "read": "files.read",
    "files": "files.list",
    "symbols": "files.read",
    "edit": "files.edit",
    "write": "files.edit",
    "patch": "files.edit",
    "submit": "files.diff",
    "run": "exec.run",
    "tests": "tests.pytest",
    "search": "search.text",
}
"""The operation that the policy decides on, by the tool of a session."""


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
    is_cut: bool = False
    """Its council takes no more work: what is on record is all that there is of it."""
    root: Digest | None = None
    """The whole tree over which the trees of the session are told, where that is another one than `base`."""


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
    state, course = begin(loop.terms, loop.base), loop.course
    while not isinstance(step := next_step(state), Over):
        ending = course.cut_off(loop.name_of(step))
        if ending is not None:
            await course.give_up()
            break
        # None: it was stopped meanwhile, and the next look sees where its records end.
        state = await course.unless_stopped(loop.take(state, step)) or state
    else:
        ending = step.reason
    await course.over(state, ending)
    return Worked(state.head, ending, state.summary, loop.tokens)


_ALL_TESTS = SessionCall(name="tests", args={})


def _tested(review: Outcome, tests: Outcome) -> Outcome:
    """The review of a submission whose author left its last change untested, with the tests that ran for it."""
    told = f"{review.text}\nThe tests had not run since your last change; they ran now: {tests.text}"
    wall_ms, sandbox_ms = review.wall_ms + tests.wall_ms, review.sandbox_ms + tests.sandbox_ms
    return replace(review, text=told, wall_ms=wall_ms, sandbox_ms=sandbox_ms)


class _Loop:
    """The steps of one session."""

    def __init__(self, bench: Workbench, given: Assignment, terms: SessionTerms, base: Digest) -> None:
        self._bench, self._is, self.terms, self.base = bench, given, terms, base
        self._desk, self.tokens = Desk(bench.blobs), 0
        self.course = Course(bench, given.step, given.work, is_cut=given.is_cut)

    @classmethod
    async def opened(cls, bench: Workbench, given: Assignment) -> _Loop:
        """The session with the terms that are on record for it: an engine that changes meanwhile changes nothing."""
        terms = terms_as_offered(bench, given.work.seat.role, given.terms, given.request)

        # A fork takes over the terms with the turns: what those used is used.
        first = f"{step_of_turn(bench.state, given.step, 1)}/begin"

        async def fixed() -> Computed:
            source = bench.state.steps[first].finished if first in bench.state.steps else None
            if source is not None:
                return Computed(json.loads(await bench.blobs.get(source.result_digest)), (given.base, given.base))
            base = given.base
            if given.root is not None:
                # Engineers on one base share its folder, also the one who goes on with what another session left.
                base = await Desk(bench.blobs).told_over(given.root, base)
            return Computed({"terms": terms.model_dump(mode="json"), "base": base}, (given.base, given.base))

        work = replace(given.work, tool="files", op="list")
        request = digest_of_json({"base": given.base})
        recorded = await bench.journal.compute(f"{given.step}/begin", request, work, fixed)
        return cls(bench, given, SessionTerms.model_validate(recorded["terms"]), Digest(recorded["base"]))

    def name_of(self, step: Ask | Carry | Recall) -> str:
        """The name under which this step is on record."""
        match step:
            case Ask():
                return self.course.turn(step.number)
            case Carry():
                return f"{self.course.turn(step.turn)}/call/{step.number}"
            case Recall():
                return f"{self.course.turn(step.turn)}/call/1"

    async def take(self, state: Session, step: Ask | Carry | Recall) -> Session:
        """The state once this step is on record."""
        match step:
            case Ask():
                state = await self.course.hear(state, step.number)
                return await self.ask(state, step.number, is_summary=step.is_summary)
            case Carry():
                await self.look_ahead(state)
                return after_outcome(state, step.call, await self.carry_out(state, step))
            case Recall():
                return after_facts(state, await self._changes(state, self.name_of(step)))

    async def _changes(self, state: Session, name: str) -> str:
        """The diff of the session so far, within what one reading shows."""

        async def effect() -> Computed:
            result = {"kind": "result", "text": await self._desk.changes(state), "head": state.head, "brief": ""}
            return Computed(result, (state.head, state.head))

        work = replace(self._is.work, tool="files", op="diff", about="changes so far, for the summary")
        request = digest_of_json({"base": state.base, "head": state.head})
        return str((await self._bench.journal.compute(name, request, work, effect))["text"])

    async def ask(self, state: Session, number: int, *, is_summary: bool = False) -> Session:
        """The next reply is on record, or that the engine gave none."""
        sampling = self._is.request.sampling.model_copy(update={"max_tokens": self.terms.output})
        turns = messages_for(state, is_summary=is_summary)
        tools = (*OFFERS, *self.terms.outside)
        request = replace(self._is.request, tools=tools, turns=turns, sampling=sampling)
        work = replace(self._is.work, tool="model", op="engineer", about=f"turn {number} of {self.terms.turns}")
        try:
            answer = await self._patiently(self.course.turn(number), request, work, state)
        except (ReplyRefused, ReplyMalformed, ContextTooLarge) as error:
            if is_summary:
                usage = self._paid(error, number)
                return after_summary(state, "", usage, latency_ms=cost_of_failure(error).latency_ms)
            return self._without_reply(state, error, number)
        except BudgetExceeded as error:
            # A council decides on what its members left; everything else waits for a person to raise the limit.
            if error.details.get("kind") not in ("council", "step"):
                raise
            return over_budget(state)
        self._count(number, answer.usage)
        reply = SessionReply.model_validate(answer.value)
        if is_summary:
            return after_summary(state, reply.text, answer.usage, latency_ms=answer.latency_ms)
        return after_reply(state, reply, answer.usage, latency_ms=answer.latency_ms)

    async def _patiently(self, name: str, request: AgentRequest, work: Work, state: Session) -> AgentAnswer:
        """The recorded answer; an engine that limits or fails is waited for, as long as the session has time left.

        Raises ModelError when it has none: the story parks, and the session goes on from its records.
        """
        pause_s, left_s = _FIRST_PAUSE_S, self.terms.wall_s - state.spent.wall_ms / 1000
        while True:
            try:
                return await self._bench.journal.ask(name, request, work)
            except ModelError as error:
                if error.retry is not Retry.LATER or error.details.get("permanent"):
                    raise
                if left_s <= 0:
                    raise _gave_up(error, self._is.work.seat.principal, self.terms.wall_s) from error
                asked_s = error.details.get("retry_after_s")
                wait_s = min(max(pause_s, asked_s if isinstance(asked_s, int | float) else 0), left_s)
            await self._bench.clock.sleep(wait_s)
            pause_s, left_s = min(2 * pause_s, _LONGEST_PAUSE_S), left_s - wait_s

    def _count(self, number: int, usage: TokenUsage) -> None:
        # The turns that a fork begins with were paid for by its source.
        if self.course.is_own(self.course.turn(number)):
            self.tokens += usage.tokens_in + usage.tokens_out

    def _paid(self, error: FleetError, number: int) -> TokenUsage:
        """What a reply cost that could not be used; it is counted."""
        cost = cost_of_failure(error)
        usage = TokenUsage(tokens_in=cost.tokens_in, tokens_out=cost.tokens_out, tokens_cached=cost.tokens_cached)
        self._count(number, usage)
        return usage

    def _without_reply(self, state: Session, error: FleetError, number: int) -> Session:
        usage = self._paid(error, number)
        is_too_long = isinstance(error, ContextTooLarge)
        problem = "The conversation was too long for the engine; older results are left out now. Go on."
        problem = problem if is_too_long else "Your last reply could not be used. Call a tool."
        return after_unusable(
            state, problem, usage, latency_ms=cost_of_failure(error).latency_ms, is_too_long=is_too_long
        )

    async def look_ahead(self, state: Session) -> None:
        """Looks that follow one another in a reply are on record, each by itself; they were made at once.

        Their outcomes are taken from the record afterwards, in the order of the calls. What a crash leaves of them is
        a row with gaps, and only the gaps are filled. Raises what the first of them does that failed, once all ended.
        """
        row = [] if self.course.is_closing else [one for one in looks_ahead(state) if not self._is_made(one)]
        if len(row) < 2:
            return
        await self._desk.tree(state.head)  # read once for all of them
        made = await asyncio.gather(*(self.carry_out(state, carry) for carry in row), return_exceptions=True)
        if failed := next((one for one in made if isinstance(one, BaseException)), None):
            raise failed

    def _is_made(self, carry: Carry) -> bool:
        step = self.name_of(carry)
        return self.course.is_done(step) or self.course.is_done(f"{step}/denied")

    async def carry_out(self, state: Session, carry: Carry) -> Outcome:
        """The call was carried out or refused by the policy, and that is on record."""
        step = self.name_of(carry)
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
        recorded = await self._bench.journal.compute(denied, carry.call.digest, work, refused)
        return Outcome("result", recorded["text"], state.head)

    async def _made(self, state: Session, call: SessionCall, step: str) -> Outcome:
        if step not in self._bench.state.steps:
            await require_budget(self._bench, self._is.work.seat.role, self._is.work.task_id)
        if call.name in RUNS:
            return await self._run(state, call, step)
        if call.is_outside:
            return await look_outside(self._bench, step, self._is.work, call, state)
        outcome = await self._compute(state, call, step)
        outcome = await self._with_hints(state, outcome, step)
        tests = f"{step}/tests"
        is_over = self.course.is_closing and not self.course.is_done(tests)
        if outcome.kind != "review" or state.is_tested or state.head == state.base or is_over:
            return outcome
        return _tested(outcome, await self._run(state, _ALL_TESTS, tests))

    async def _with_hints(self, state: Session, review: Outcome, step: str) -> Outcome:
        """The review with what formatter and linters of the base say of what was changed; that fails nothing."""
        if review.kind != "review" or state.head == state.base:
            return review
        head, terms = await self._desk.tree(state.head), state.terms
        if terms.is_formatted:
            call = await format_changes(self._bench.blobs, state.base, head)
            said = "The repository's own formatter would change this"
            review = await self._with_hint(state, review, f"{step}/format", call, said)
        if terms.is_linted:
            call = await lint_changes(self._bench.blobs, state.base, head)
            said = "The repository's own linters say this of the files you changed, also of old lines"
            review = await self._with_hint(state, review, f"{step}/lint", call, said)
        return review

    async def _with_hint(
        self, state: Session, review: Outcome, step: str, call: SessionCall | None, said: str
    ) -> Outcome:
        is_over = self.course.is_closing and not self.course.is_done(step)
        if call is None or is_over:
            return review
        try:
            outcome = await self._run(state, call, step)
        except PolicyDenied:
            return review  # where no command may run, nothing is said
        wall_ms, sandbox_ms = review.wall_ms + outcome.wall_ms, review.sandbox_ms + outcome.sandbox_ms
        told = f"{review.text}\n{said}; it is no failure: {outcome.text}" if outcome.kind == "failure" else review.text
        return replace(review, text=told, wall_ms=wall_ms, sandbox_ms=sandbox_ms)

    async def _run(self, state: Session, call: SessionCall, step: str) -> Outcome:
        files = Files(self._is.step, await self._desk.tree(state.head), await self._desk.root(state.head))
        return await run_call(self._bench, step, self._work_of(call), call, state, files)

    async def _compute(self, state: Session, call: SessionCall, step: str) -> Outcome:
        """A look or an edit: a function of the files and of the arguments."""
        ends = call.name == "submit" and state.is_reviewed

        async def effect() -> Computed:
            if ends:
                return Computed({"kind": "note", "text": "Submitted.", "head": state.head, "brief": ""})
            looked = await self._desk.carry_out(call, state)
            result = {"kind": looked.kind, "text": looked.text, "head": looked.head, "brief": looked.brief}
            # Those who watch see that an edit was refused without reading its result.
            said = {"summary": looked.text.partition("\n")[0][:_MAX_SAID]} if looked.kind == "refused" else {}
            return Computed({**result, **said}, (state.head, looked.head))

        request = digest_of_json({"call": call.model_dump(mode="json"), "head": state.head})
        recorded = await self._bench.journal.compute(step, request, self._work_of(call), effect)
        return Outcome(recorded["kind"], recorded["text"], Digest(recorded["head"]), brief=recorded["brief"], ends=ends)

    def _work_of(self, call: SessionCall) -> Work:
        tool, _, op = STEP_OF[call.name].partition(".")
        args = {"argv": ["bash", "-c", call.text("command")]} if call.name == "run" else {}
        return replace(self._is.work, tool=tool, op=op, args=args, about=f"{call.name} {call.about}".strip())


def _gave_up(error: ModelError, who: Principal, wall_s: int) -> ModelError:
    """The error of an engine that was waited for long enough: it says what is kept, and is not tried again at once."""
    told = (
        f"{error.message}; the session of {who} has waited for its engine until the {wall_s} s of its time were used. "
        "Its turns and files are kept: once the engine answers, `fleet resume` goes on with them"
    )
    return type(error)(told, **{**error.details, "waited": True})
