"""`fleet session`: the work sessions of engineers, live and afterwards, and what people do to them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from fleet.cli.exit_codes import DONE
from fleet.cli.local.local_principals import local_principal
from fleet.cli.output import Output, shown
from fleet.cli.story.stories import with_desk
from fleet.desk.sessions.desk import MAX_TURNS, SessionReader
from fleet.desk.sessions.pages import CallPage, SessionPage, TurnPage
from fleet.desk.tree_view import tree_changes
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import StoryId
from fleet.story.commands.sessions import ForkSession, StopSession, TellSession
from fleet.wiring.stores.stores import make_blobs

if TYPE_CHECKING:
    from fleet.desk.planning import PlanningDesk
    from fleet.story.commands.command import StoryCommand
    from fleet.trees.port import BlobStore
    from fleet.wiring.endpoints import Endpoints

_MOST_PATCH = 200
"""Lines of the diff after one call that a terminal is given."""
_MOST_OUTPUT = 30


def list_sessions(output: Output, story_id: str) -> int:
    """Every session of the story is printed, one a line, with what it does now."""

    async def work(desk: PlanningDesk, endpoints: Endpoints) -> int:
        pages = await SessionReader(desk, make_blobs(endpoints)).sessions(StoryId(story_id))
        for page in pages:
            for line in _lines(page):
                output.say(line)
        if not pages:
            output.say("no engineer of this story has worked in a session; an engine with `strategy: session` does")
        output.result({"story_id": story_id, "sessions": [page.model_dump(mode="json") for page in pages]})
        return DONE

    return with_desk(work)


def _lines(page: SessionPage) -> list[str]:
    state = page.ended.replace("_", " ") if page.ended else page.status
    lines = [f"{page.session_id}  {shown(page.member_id)}  turn {page.turn} of {page.turns}  {shown(state)}"]
    lines.append(
        f"  {page.changed_files} files changed; {page.tokens_in} tokens in ({page.tokens_cached} cached), "
        f"{page.tokens_out} out"
    )
    if page.forked_from is not None:
        lines.append(f"  forked from {page.forked_from} at turn {page.forked_at}")
    if page.last is not None:
        lines.append(f"  last: {shown(page.last.tool)} {shown(page.last.about)}: {shown(page.last.outcome)}")
    if page.tests is not None:
        new = "" if page.tests.new is None else f", {len(page.tests.new)} of them new"
        lines.append(f"  tests in turn {page.tests.turn}: {page.tests.passed} passed, {page.tests.failed} failed{new}")
    if page.waits_for:
        lines.append(f"  waits for {shown(page.waits_for)}")
    unread = sum(one.before_turn is None for one in page.told)
    if unread and page.ended is None:
        lines.append(f"  {unread} messages wait to be read before the next reply")
    return lines


def show_session(output: Output, story_id: str, session_id: str, *, after: int, with_diff: bool) -> int:
    """The whole session is printed like a terminal recording: each turn, each call, and the diff after it."""

    async def work(desk: PlanningDesk, endpoints: Endpoints) -> int:
        blobs = make_blobs(endpoints)
        sessions, at = SessionReader(desk, blobs), after
        turns: list[TurnPage] = []
        while True:
            page = await sessions.session(StoryId(story_id), session_id, after=at, limit=MAX_TURNS)
            for turn in page.turns:
                await _print_turn(output, blobs, turn, with_diff=with_diff)
                turns.append(turn)
            if page.next_after is None:
                break
            at = page.next_after
        for line in _lines(page.session):
            output.say(line)
        if page.session.summary:
            output.say(f"  summary: {shown(page.session.summary)}")
        output.result(
            {
                "session": page.session.model_dump(mode="json"),
                "turns": [turn.model_dump(mode="json") for turn in turns],
            }
        )
        return DONE

    return with_desk(work)


async def _print_turn(output: Output, blobs: BlobStore, turn: TurnPage, *, with_diff: bool) -> None:
    inherited = " (of the session it was forked from)" if turn.is_inherited else ""
    figures = f"{turn.tokens_in} tokens in, {turn.tokens_out} out"
    output.say(f"[bold]turn {shown(turn.number)}[/]{shown(inherited)}  {shown(figures)}")
    if turn.told:
        output.say(_indented(turn.told, "  | "))
    if turn.text.strip():
        output.say(_indented(turn.text.strip(), "  "))
    if turn.problem:
        output.say(f"  no reply: {shown(turn.problem)}")
    for note in turn.notes:
        output.say(f"  {shown(note)}")
    for call in turn.calls:
        output.say(f"  $ {shown(call.tool)} {shown(call.about)}")
        lines = call.output.rstrip().split("\n")[-_MOST_OUTPUT:]
        if any(line.strip() for line in lines):
            output.say(_indented("\n".join(lines), "    "))
        output.say(f"    [dim]{shown(call.outcome)}, {shown(call.wall_ms)} ms[/]")
        if with_diff:
            await _print_diff(output, blobs, call)


async def _print_diff(output: Output, blobs: BlobStore, call: CallPage) -> None:
    if call.before is None or call.after is None or call.before == call.after:
        return
    try:
        changes = await tree_changes(blobs, call.before, call.after)
    except ArtifactNotFound:
        output.say("    the diff is no longer kept")
        return
    for file in changes.files:
        patch = (file.patch or f"{file.change} {file.path}: no text").rstrip().split("\n")
        output.say(_indented("\n".join(patch[:_MOST_PATCH]), "    "))
        if len(patch) > _MOST_PATCH:
            output.say(f"    {len(patch) - _MOST_PATCH} more lines of this file")
    if changes.left_out:
        output.say(f"    {changes.left_out} more files")


def _indented(text: str, before: str) -> str:
    return "\n".join(f"{before}{shown(line)}" for line in text.split("\n"))


def tell(output: Output, story_id: str, session_id: str, text: str) -> int:
    """The engineer reads the text before its next reply."""
    sent = TellSession(session_id=session_id, text=text)
    return _sent(output, story_id, sent, said=f"session {session_id} reads it before its next reply")


def stop(output: Output, story_id: str, session_id: str, *, reason: str) -> int:
    """The session ends with the files that it has."""
    sent = StopSession(session_id=session_id, reason=reason)
    return _sent(output, story_id, sent, said=f"session {session_id} ends, and its files are its submission")


def fork(output: Output, story_id: str, session_id: str, *, turn: int | None) -> int:
    """A new session begins with the records of this one."""
    sent = ForkSession(session_id=session_id) if turn is None else ForkSession(session_id=session_id, turn=turn)
    return _sent(
        output, story_id, sent, said=f"session {session_id} is forked; `fleet session list {story_id}` shows it"
    )


def _sent(output: Output, story_id: str, sent: StoryCommand, *, said: str) -> int:
    async def work(desk: PlanningDesk, _: Endpoints) -> int:
        key = f"{story_id}/{sent.command}/{secrets.token_hex(8)}"
        result = await desk.require(StoryId(story_id), sent, principal=local_principal(), key=key)
        output.say(shown(said))
        output.result(result)
        return DONE

    return with_desk(work)
