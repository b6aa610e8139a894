"""Reads of work sessions. Everything is from recorded steps and their blobs: there is no second truth (AP-133)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from fleet.context.row_cut import RowCut
from fleet.desk.planning import PlanningDesk
from fleet.desk.sessions.pages import (
    CallPage,
    ChangedFile,
    OutputPage,
    SessionPage,
    SessionStatus,
    SessionTurns,
    TestsPage,
    ToldPage,
    TurnPage,
)
from fleet.desk.shown_text import shown_name, shown_text
from fleet.events.codec import decode
from fleet.events.step import SessionForked
from fleet.kernel.errors import ArtifactNotFound, NotFound
from fleet.kernel.ids import CommandId, Digest, EntityId, StoryId
from fleet.owner.engineering.runs import printed
from fleet.policy.runs.calls import JUNIT
from fleet.policy.runs.spec import RunResult
from fleet.story.sessions.steps import CallSteps, SessionSteps, TurnSteps, sessions_of, whole_turns
from fleet.story.state import Step, StoryState
from fleet.trees.port import BlobStore
from fleet.trees.service import read_changes
from fleet.trees.tree import changed_paths
from fleet.workspace.service.report import Measurement
from fleet.workspace.service.results import parse_junit

MAX_TURNS = 50
"""Turns on one page."""
MAX_LINES = 2_000
"""Lines of an output on one page."""
_OUTPUT, _WORDS, _FILES, _FAILING = 2_000, 4_000, 50, 50
_WORDS_OF: Mapping[str, str] = {
    "edit": "edited",
    "result": "shown",
    "review": "reviewed",
    "note": "submitted",
}


class SessionReader:
    """Reads of the work sessions of stories."""

    def __init__(self, planning: PlanningDesk, blobs: BlobStore) -> None:
        self._planning, self._blobs = planning, blobs

    async def sessions(self, story_id: StoryId, *, cut: RowCut | None = None) -> tuple[SessionPage, ...]:
        """Every session of the story, of a cut those on shown tasks. StoryNotFound."""
        state = await self._state(story_id, cut)
        return tuple([await self._page(state, session) for session in sessions_of(state)])

    async def session(
        self, story_id: StoryId, session_id: str, *, after: int = 0, limit: int = 20, cut: RowCut | None = None
    ) -> SessionTurns:
        """One session with the turns after this one, those included that a fork begins with.

        Raises NotFound when the story has no such session.
        """
        state = await self._state(story_id, cut)
        session = _named(state, session_id)
        turns = whole_turns(state, session)
        wanted = [number for number in sorted(turns) if number > after]
        page = wanted[: min(limit, MAX_TURNS)]
        head = await self._head_before(session, turns, page[0] if page else 0)
        found = list[TurnPage]()
        for number in page:
            turn, head = await self._turn(session, turns[number], head)
            found.append(turn)
        return SessionTurns(
            session=await self._page(state, session),
            turns=tuple(found),
            next_after=page[-1] if len(wanted) > len(page) else None,
        )

    async def output(
        self,
        story_id: StoryId,
        session_id: str,
        digest: Digest,
        *,
        first: int = 1,
        limit: int = 500,
        cut: RowCut | None = None,
    ) -> OutputPage:
        """Lines of what a call printed or showed, by the digest that its page names.

        Raises:
            NotFound: the story has no such session.
            ArtifactNotFound: no call of the session has this output, or retention has deleted it.
        """
        state = await self._state(story_id, cut)
        session = _named(state, session_id)
        for turn in whole_turns(state, session).values():
            for call in turn.calls.values():
                for step in (call.main, call.tests, call.denied):
                    if step is not None and step.finished is not None and step.finished.result_digest == digest:
                        lines = shown_text(await self._whole(step)).split("\n")
                        shown = lines[first - 1 : first - 1 + min(limit, MAX_LINES)]
                        return OutputPage(digest=digest, lines=tuple(shown), first=first, of=len(lines))
        raise ArtifactNotFound(f"no call of session {session_id} has output {digest}", digest=digest)

    async def forked(self, story_id: StoryId, command_id: CommandId) -> EntityId:
        """The session that this very request forked, however often it is sent. NotFound."""
        for event in await self._planning.events(story_id):
            if event.type == SessionForked.type and event.command_id == command_id:
                payload = decode(event)
                assert isinstance(payload, SessionForked)
                return payload.session_id
        raise NotFound(f"story {story_id} has no fork of this request")

    async def _state(self, story_id: StoryId, cut: RowCut | None) -> StoryState:
        state = await self._planning.state(story_id)
        return state if cut is None else cut.state(state)

    async def _page(self, state: StoryState, session: SessionSteps) -> SessionPage:
        record, turns = session.record, whole_turns(state, session)
        begun = await self._begun(session)
        base = Digest(begun["base"]) if begun else None
        replies = [t.reply.finished.cost for t in session.turns.values() if t.reply is not None and t.reply.finished]
        head = await self._head_before(session, turns, session.last_turn + 1)
        head = record.ended.head_digest if record.ended is not None else head
        last_turn, last = await self._last(session, turns)
        changed = await self._changed(base, head)
        status = _status(state, session)
        return SessionPage(
            session_id=session.session_id,
            story_id=state.story_id,
            council_id=session.council_id,
            task_id=session.task_id,
            member_id=session.member.member_id,
            role=session.member.role,
            principal=session.member.principal,
            work="draft" if session.is_draft else "repair",
            status=status,
            waits_for=_waits_for(state, session) if status != "over" else "",
            turn=session.last_turn,
            turns=int(begun["terms"]["turns"]) if begun else 0,
            tokens_in=sum(cost.tokens_in for cost in replies),
            tokens_cached=sum(cost.tokens_cached for cost in replies),
            tokens_out=sum(cost.tokens_out for cost in replies),
            last=last,
            last_turn=last_turn,
            tests=await self._tests(state, turns),
            base=base,
            head=head,
            changed=changed[:_FILES],
            changed_files=len(changed),
            told=await self._told(session),
            ended=record.ended.reason if record.ended is not None else None,
            summary=shown_text(record.ended.summary) if record.ended is not None else "",
            stopped_by=record.stopped.by if record.stopped is not None else None,
            stop_reason=record.stopped.reason if record.stopped is not None else None,
            forked_from=record.forked.source_id if record.forked is not None else None,
            forked_at=record.forked.turn if record.forked is not None else None,
        )

    async def _begun(self, session: SessionSteps) -> dict[str, Any] | None:
        return await self._json(session.begun)

    async def _json(self, step: Step | None) -> dict[str, Any] | None:
        """The result of a step; None while there is none, and where retention has deleted it."""
        if step is None or step.finished is None:
            return None
        try:
            return json.loads(await self._blobs.get(step.finished.result_digest))
        except ArtifactNotFound:
            return None

    async def _told(self, session: SessionSteps) -> tuple[ToldPage, ...]:
        before, upto = list[int](), 0
        for number in sorted(session.turns):
            found = await self._json(session.turns[number].told)
            if found is not None:
                before += [number] * (int(found["upto"]) - upto)
                upto = int(found["upto"])
        told = session.record.told
        places = [*before, *([None] * (len(told) - len(before)))]
        return tuple(
            ToldPage(by=one.by, text=shown_text(one.text), before_turn=place)
            for one, place in zip(told, places, strict=False)
        )

    async def _changed(self, base: Digest | None, head: Digest | None) -> tuple[ChangedFile, ...]:
        if base is None or head is None or base == head:
            return ()
        try:
            changes = changed_paths(*await read_changes(self._blobs, base, head))
        except ArtifactNotFound:
            return ()
        return tuple(ChangedFile(path=shown_name(one.path), change=one.change) for one in changes)

    async def _head_before(self, session: SessionSteps, turns: Mapping[int, TurnSteps], number: int) -> Digest | None:
        """The tree that the calls of this turn begin with."""
        for earlier in sorted((n for n in turns if n < number), reverse=True):
            calls = turns[earlier].calls
            for at in sorted(calls, reverse=True):
                if (after := _tree_after(calls[at])) is not None:
                    return after
        begun = await self._begun(session)
        return Digest(begun["base"]) if begun else None

    async def _last(self, session: SessionSteps, turns: Mapping[int, TurnSteps]) -> tuple[int | None, CallPage | None]:
        numbers = [number for number in sorted(turns) if turns[number].calls]
        if not numbers:
            return None, None
        turn = turns[numbers[-1]]
        head = await self._head_before(session, turns, turn.number)
        for at in sorted(turn.calls)[:-1]:
            head = _tree_after(turn.calls[at]) or head
        return turn.number, await self._call(turn.calls[max(turn.calls)], head)

    async def _turn(
        self, session: SessionSteps, turn: TurnSteps, head: Digest | None
    ) -> tuple[TurnPage, Digest | None]:
        """The turn, and the tree after it."""
        calls = list[CallPage]()
        for at in sorted(turn.calls):
            page = await self._call(turn.calls[at], head)
            calls.append(page)
            head = page.after or head
        reply, told = await self._json(turn.reply), await self._json(turn.told)
        finished = turn.reply.finished if turn.reply is not None else None
        value: dict[str, Any] = (reply or {}).get("value") or {}
        has_reply = finished is not None and finished.outcome == "succeeded"
        cost = finished.cost if finished is not None else None
        page = TurnPage(
            number=turn.number,
            is_inherited=turn.number not in session.turns,
            told=shown_text(str(told["text"])) if told else "",
            text=shown_text(str(value.get("text", "")))[:_WORDS],
            problem="" if has_reply or finished is None else shown_text(finished.excerpt or "no usable reply"),
            calls=tuple(calls),
            notes=_notes(value, turn),
            is_waiting=finished is None,
            tokens_in=cost.tokens_in if cost else 0,
            tokens_cached=cost.tokens_cached if cost else 0,
            tokens_out=cost.tokens_out if cost else 0,
            latency_ms=cost.latency_ms if cost else 0,
        )
        return page, head

    async def _call(self, call: CallSteps, head: Digest | None) -> CallPage:
        step = call.main or call.denied
        assert step is not None, "a call is there because one of its steps is"
        tool, _, about = (step.started.about or step.started.op or "").partition(" ")
        tool, about = (tool, "") if call.main is None else (tool, shown_text(about))
        if step.finished is None:
            return CallPage(number=call.number, tool=tool, about=about, outcome="running")
        finished = step.finished
        return CallPage(
            number=call.number,
            tool=tool,
            about=about,
            outcome=await self._outcome(call, step),
            exit_code=finished.exit_code,
            output=shown_text(await self._end(step)),
            output_digest=finished.result_digest,
            before=head,
            after=_tree_after(call) or head,
            wall_ms=finished.cost.latency_ms,
        )

    async def _outcome(self, call: CallSteps, step: Step) -> str:
        assert step.finished is not None
        if call.main is None or step.finished.outcome == "denied":
            return "not allowed"
        if step.started.kind != "run":
            kind = str((await self._json(step) or {}).get("kind", ""))
            # A look outside has none: it is a call of a tool.
            ended = "shown" if step.finished.outcome == "succeeded" else step.finished.outcome.replace("_", " ")
            return _WORDS_OF.get(kind, kind or ended)
        reason, code = step.finished.reason, step.finished.exit_code
        is_exit = code is not None and reason in (None, "ok", "exit_nonzero")
        return f"exit {code}" if is_exit else str(reason).replace("_", " ")

    async def _end(self, step: Step) -> str:
        assert step.finished is not None
        if step.started.kind == "run":
            return (step.finished.excerpt or "")[-_OUTPUT:]
        text = _text_of(await self._json(step) or {})
        return text if len(text) <= _OUTPUT else f"{text[:_OUTPUT]}\n[...]"

    async def _whole(self, step: Step) -> str:
        assert step.finished is not None
        raw = await self._blobs.get(step.finished.result_digest)
        if step.started.kind != "run":
            return _text_of(json.loads(raw))
        return await printed(self._blobs, RunResult.model_validate_json(raw))

    async def _tests(self, state: StoryState, turns: Mapping[int, TurnSteps]) -> TestsPage | None:
        for number in sorted(turns, reverse=True):
            for at in sorted(turns[number].calls, reverse=True):
                call = turns[number].calls[at]
                for step in (call.tests, call.main):
                    suite = await self._suite(step)
                    if suite is not None:
                        return await self._tests_page(state, number, *suite)
        return None

    async def _suite(self, step: Step | None) -> tuple[int, list[str]] | None:
        """How many tests passed in this run, and which did not; None for a step that ran none."""
        artifacts = step.finished.artifacts if step is not None and step.finished is not None else ()
        junit = next((one.artifact_digest for one in artifacts if one.path == JUNIT), None)
        if junit is None:
            return None
        try:
            suite = await asyncio.to_thread(parse_junit, await self._blobs.get(junit))
        except ArtifactNotFound:
            return None
        if suite is None or not suite.cases:
            return None
        failing = [case.id for case in suite.cases if case.outcome in ("failed", "errored")]
        return sum(case.outcome == "passed" for case in suite.cases), failing

    async def _tests_page(self, state: StoryState, turn: int, passed: int, failing: list[str]) -> TestsPage:
        known = await self._failing_on_base(state)
        new = None if known is None else tuple(shown_text(one) for one in failing if one not in known)[:_FAILING]
        shown = tuple(shown_text(one) for one in failing)[:_FAILING]
        return TestsPage(turn=turn, passed=passed, failed=len(failing), failing=shown, new=new)

    async def _failing_on_base(self, state: StoryState) -> frozenset[str] | None:
        report = state.reports.get(state.base_tree or "")
        if report is None:
            return None
        try:
            return frozenset(Measurement.decode(await self._blobs.get(report.report_digest)).failing)
        except (ArtifactNotFound, ValueError):
            return None


def _text_of(result: Mapping[str, Any]) -> str:
    """What a result says; of a call that came to none, why."""
    return str(result.get("text") or result.get("message") or "")


def _named(state: StoryState, session_id: str) -> SessionSteps:
    found = next((one for one in sessions_of(state) if one.session_id == session_id), None)
    if found is None:
        raise NotFound(
            f"story {state.story_id} has no work session {session_id[:80]!r}; `fleet session list {state.story_id}` "
            "shows those that it has",
            session_id=session_id[:80],
        )
    return found


def _tree_after(call: CallSteps) -> Digest | None:
    """The tree that the call left; None where it changed nothing or is not over."""
    finished = call.main.finished if call.main is not None else None
    return finished.provenance.tree_out_digest if finished is not None else None


def _status(state: StoryState, session: SessionSteps) -> SessionStatus:
    is_open = state.councils[session.council_id].status == "IN_PROGRESS" and not state.is_over
    if session.record.ended is not None or not is_open:
        return "over"
    return "waiting" if session.begun is None or state.is_paused or state.disposition != "active" else "working"


def _waits_for(state: StoryState, session: SessionSteps) -> str:
    if state.disposition == "parked":
        return "a person: the story is parked"
    if state.is_paused:
        return "a person: the story is paused"
    if session.record.stopped is not None:
        return "its owner, which ends it"
    if session.begun is None:
        return "its turn: it begins when the council looks at its members again"
    turn = session.turns.get(session.last_turn)
    running = [c for c in turn.calls.values() if c.main is not None and c.main.finished is None] if turn else []
    if running and running[0].main is not None:
        return (
            f"call {running[0].number} of turn {session.last_turn}: {shown_text(running[0].main.started.about or '')}"
        )
    if turn is not None and turn.reply is not None and turn.reply.finished is None:
        return f"reply {session.last_turn} of its engine"
    return "its owner, which takes the next step"


def _notes(value: Mapping[str, Any], turn: TurnSteps) -> tuple[str, ...]:
    """The uses of a reply that no step carried out."""
    uses: Any = value.get("uses") or ()
    missing = [use for place, use in enumerate(uses, 1) if place not in turn.calls]
    return tuple(shown_text(f"{use['name']} {use['arguments']}")[:300] for use in missing)
