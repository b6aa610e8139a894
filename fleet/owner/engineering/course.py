"""The course of a work session beside its turns: what people say to it, what cuts it off, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from fleet.engineering.shown import said_by, untrusted
from fleet.engineering.state import Session, SessionEnding, with_heard
from fleet.events.step import SessionEnded, StuckDetected
from fleet.events.values import StuckPattern
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import StepId
from fleet.owner.journal.journal import Computed
from fleet.owner.journal.step_records import run_attempts
from fleet.owner.journal.steps import Work
from fleet.owner.workbench import Workbench
from fleet.story.sessions.steps import session_id_of, step_of_turn
from fleet.story.state import SessionRecord

T = TypeVar("T")

_MAX_SUMMARY = 4_000
_MAX_STEPS_NAMED = 20
_PATTERNS: dict[SessionEnding, StuckPattern] = {
    SessionEnding.SAME_CALL: "repeated_result",
    SessionEnding.SAME_FAILURE: "repeated_failure",
    SessionEnding.BACK_AND_FORTH: "alternating_calls",
    SessionEnding.REFUSED_EDITS: "repeated_failure",
    SessionEnding.NO_USABLE_REPLY: "no_usable_reply",
    SessionEnding.SUMMARISED_AGAIN: "repeated_summary",
}


class Course:
    """What is on record around the turns of one session.

    Args:
        step: its steps are named below it.
        work: seat, council and task of its steps.
        is_cut: its council takes no more work.
    """

    def __init__(self, bench: Workbench, step: str, work: Work, *, is_cut: bool) -> None:
        self._bench, self._step, self._work, self._is_cut = bench, step, work, is_cut
        self._id = session_id_of(bench.journal.story_id, step)
        self._told = 0
        """Of what people said, so much is in the conversation."""

    @property
    def _record(self) -> SessionRecord:
        return self._bench.state.sessions.get(self._id, SessionRecord())

    def turn(self, number: int) -> str:
        """The name of the step of this turn; that of the source for the turns that a fork begins with."""
        return f"{step_of_turn(self._bench.state, self._step, number)}/{number}"

    def is_own(self, step: str) -> bool:
        """Whether the step is of this session, and not of the one that it was forked from."""
        return step.startswith(f"{self._step}/")

    def is_done(self, step: str) -> bool:
        """Whether the step has its result."""
        record = self._bench.state.steps.get(step)
        return record is not None and record.finished is not None

    @property
    def is_closing(self) -> bool:
        """Whether nothing is started any more."""
        return self._is_cut or self._record.stopped is not None

    def cut_off(self, step: str) -> SessionEnding | None:
        """Why the session ends before this step; None for one that is on record, and while it may go on."""
        if not self.is_closing or self.is_done(step) or self.is_done(f"{step}/denied"):
            return None
        return SessionEnding.STOPPED if self._record.stopped is not None else SessionEnding.COUNCIL_OVER

    async def give_up(self) -> None:
        """A command that was under way is ended: nobody waits for it."""
        journal = self._bench.journal
        for name, step in self._bench.state.steps.items():
            if step.finished is None and step.started.kind == "run" and self.is_own(name):
                await journal.abandon(run_attempts(journal.story_id, name, step.started.request_digest))

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work comes to; None when a person stopped the session while it was under way."""
        limit = asyncio.timeout(None)

        def look() -> None:
            if self._record.stopped is not None and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())

        try:
            async with limit:
                with self._bench.journal.watched(look):
                    return await work
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    async def hear(self, state: Session, number: int) -> Session:
        """What people said until now stands before this reply; where it stands is on record before it is sent."""
        name = f"{self.turn(number)}/told"
        told = self._record.told[self._told :]
        if not self.is_done(name) and (self.is_done(self.turn(number)) or not told):
            return state

        async def said() -> Computed:
            text = "\n\n".join(said_by(one.by, one.text) for one in told)
            return Computed({"upto": self._told + len(told), "text": text})

        work = replace(self._work, tool="files", op="list", about=f"reads what {told[-1].by if told else ''} said")
        recorded = await self._bench.journal.compute(name, digest_of_json({"upto": len(told)}), work, said)
        if self.is_own(name):
            self._told = recorded["upto"]
        return with_heard(state, recorded["text"])

    async def over(self, state: Session, reason: SessionEnding) -> None:
        """The end is on record, and the circle in which the session went (MB-41). What it left goes on as it is."""
        await self._record_stuck(reason, state)
        assert self._work.council_id is not None, "sessions work for councils"
        ended = SessionEnded(
            session_id=self._id,
            council_id=self._work.council_id,
            reason=reason.value,
            summary=untrusted(state.summary)[:_MAX_SUMMARY],
            turns=len(state.turns),
            base_digest=state.base,
            head_digest=state.head,
        )
        await self._bench.journal.record(f"{self._step}/ended", ended, actor=self._work.seat.principal)

    async def _record_stuck(self, reason: SessionEnding, state: Session) -> None:
        task_id = self._work.task_id
        if reason not in _PATTERNS or task_id is None:
            return
        steps = tuple(StepId(self.turn(number)) for number in range(1, len(state.turns) + 1))
        stuck = StuckDetected(task_id=task_id, pattern=_PATTERNS[reason], steps=steps[-_MAX_STEPS_NAMED:], level=1)
        await self._bench.journal.record(f"{self._step}/stuck", stuck)
