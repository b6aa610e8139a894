"""Work sessions over HTTP: read them live and afterwards, speak to one, stop it, fork it (AP-130..AP-133)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from fleet.context.row_cut import RowCut
from fleet.desk.sessions.desk import MAX_LINES, MAX_TURNS, SessionReader
from fleet.desk.sessions.pages import OutputPage, SessionList, SessionPage, SessionTurns
from fleet.kernel.ids import Digest
from fleet.kernel.types import ReasonRequest
from fleet.story.commands.sessions import ForkRequest, ForkSession, StopSession, TellRequest, TellSession
from serve_apps.commanding import Sent, send
from serve_apps.requests import Caller, Desk, Key, Stories, Story
from serve_apps.sight import sight_of

session_router = APIRouter()

_SESSIONS = "/planner/stories/{story_id}/sessions"
_ONE = _SESSIONS + "/{session_id}"


def _sessions(stories: Stories) -> SessionReader:
    return SessionReader(stories.planning, stories.blobs)


Sessions = Annotated[SessionReader, Depends(_sessions)]


async def _cut(request: Request, desk: Desk, who: Caller, story_id: Story) -> RowCut | None:
    return await sight_of(request).cut(who, await desk.state(story_id))


Cut = Annotated[RowCut | None, Depends(_cut)]


@session_router.get(
    _SESSIONS,
    response_model=SessionList,
    operation_id="list_work_sessions_api_planner_stories__story_id__sessions_get",
)
async def list_work_sessions(sessions: Sessions, cut: Cut, story_id: Story) -> SessionList:
    """The work sessions of a story: turn, last command with the end of its output, tests, changed files, tokens."""
    return SessionList(items=await sessions.sessions(story_id, cut=cut))


@session_router.get(
    _ONE,
    response_model=SessionTurns,
    operation_id="show_work_session_api_planner_stories__story_id__sessions__session_id__get",
)
async def show_work_session(
    sessions: Sessions,
    cut: Cut,
    story_id: Story,
    session_id: str,
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_TURNS)] = 20,
) -> SessionTurns:
    """One session turn by turn and call by call; the diff after a call is that between its two trees."""
    return await sessions.session(story_id, session_id, after=after, limit=limit, cut=cut)


@session_router.get(
    _ONE + "/outputs/{digest}",
    response_model=OutputPage,
    operation_id="show_session_output_api_planner_stories__story_id__sessions__session_id__outputs__digest__get",
)
async def show_session_output(
    sessions: Sessions,
    cut: Cut,
    story_id: Story,
    session_id: str,
    digest: str,
    first: Annotated[int, Query(alias="from", ge=1)] = 1,
    lines: Annotated[int, Query(ge=1, le=MAX_LINES)] = 500,
) -> OutputPage:
    """Lines of what a call printed or showed, by the digest that its session names."""
    return await sessions.output(story_id, session_id, Digest(digest), first=first, limit=lines, cut=cut)


@session_router.post(
    _ONE + "/tell",
    response_model=SessionPage,
    operation_id="tell_session_api_planner_stories__story_id__sessions__session_id__tell_post",
)
async def tell_session(
    request: Request,
    desk: Desk,
    sessions: Sessions,
    cut: Cut,
    who: Caller,
    key: Key,
    story_id: Story,
    session_id: str,
    body: TellRequest,
) -> Any:
    """Tell the engineer something; it reads it before its next reply."""
    await sessions.session(story_id, session_id, limit=1, cut=cut)
    sent = await send(request, desk, story_id, TellSession(session_id=session_id, text=body.text), who=who, key=key)
    return await _after(sessions, cut, sent, session_id)


@session_router.post(
    _ONE + "/stop",
    response_model=SessionPage,
    operation_id="stop_session_api_planner_stories__story_id__sessions__session_id__stop_post",
)
async def stop_session(
    request: Request,
    desk: Desk,
    sessions: Sessions,
    cut: Cut,
    who: Caller,
    key: Key,
    story_id: Story,
    session_id: str,
    body: ReasonRequest,
) -> Any:
    """End the session with the files that it has: they are its submission."""
    await sessions.session(story_id, session_id, limit=1, cut=cut)
    sent = await send(request, desk, story_id, StopSession(session_id=session_id, reason=body.reason), who=who, key=key)
    return await _after(sessions, cut, sent, session_id)


@session_router.post(
    _ONE + "/fork",
    response_model=SessionPage,
    operation_id="fork_session_api_planner_stories__story_id__sessions__session_id__fork_post",
)
async def fork_session(
    request: Request,
    desk: Desk,
    sessions: Sessions,
    cut: Cut,
    who: Caller,
    key: Key,
    story_id: Story,
    session_id: str,
    body: ForkRequest,
) -> Any:
    """Begin a further session with the records of this one up to a turn; the answer is the new session."""
    await sessions.session(story_id, session_id, limit=1, cut=cut)
    fork = ForkSession(session_id=session_id, **body.model_dump(exclude_none=True))
    sent = await send(request, desk, story_id, fork, who=who, key=key)
    if sent.is_pending:
        return sent.pending()
    return await _after(sessions, cut, sent, await sessions.forked(story_id, sent.command_id))


async def _after(sessions: SessionReader, cut: RowCut | None, sent: Sent, session_id: str) -> Any:
    if sent.is_pending:
        return sent.pending()
    return (await sessions.session(sent.story_id, session_id, limit=1, cut=cut)).session
