"""Work sessions over MCP: the reads and the commands that HTTP has (AP-113, AP-130..AP-133)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fleet.context.row_cut import RowCut
from fleet.desk.planning import PlanningDesk
from fleet.desk.sessions.desk import MAX_LINES, MAX_TURNS, SessionReader
from fleet.desk.stories import StoryDesk
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import CommandId, Digest, Principal
from fleet.kernel.types import ReasonRequest
from fleet.story.commands.command import StoryCommand
from fleet.story.commands.sessions import ForkSession, StopSession, TellRequest, TellSession
from serve_apps.mcp_tools import IdempotencyKey, McpOperation, OfStory
from serve_apps.requests import check_key
from serve_apps.sight import Sight
from serve_apps.wire.evidence import diff_view

_MAX_ID = 200
_Lines = Annotated[int, Field(ge=1, le=MAX_LINES)]


class _OfWorkSession(OfStory):
    session_id: Annotated[str, Field(alias="sessionId", min_length=1, max_length=_MAX_ID)]


class _Show(_OfWorkSession):
    after: Annotated[int, Field(ge=0, le=10**6)] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_TURNS)] = 20


class _Output(_OfWorkSession):
    digest: Digest
    from_line: Annotated[int, Field(alias="fromLine", ge=1, le=10**9)] = 1
    lines: _Lines = 500


class _Tell(_OfWorkSession, TellRequest):
    key: IdempotencyKey


class _Stop(_OfWorkSession, ReasonRequest):
    key: IdempotencyKey


class _Fork(_OfWorkSession):
    turn: Annotated[int, Field(ge=1, le=10**6)] | None = None
    key: IdempotencyKey


class _Diff(OfStory):
    from_tree: Annotated[Digest | None, Field(alias="fromTree")] = None
    to_tree: Annotated[Digest | None, Field(alias="toTree")] = None
    path: Annotated[str, Field(max_length=4096)] | None = None


class WorkSessionTools:
    """The tools about work sessions; whoever calls them sees the story.

    Args:
        stories: None answers everything with `store_unavailable`.
    """

    def __init__(self, desk: PlanningDesk, stories: StoryDesk | None, *, sight: Sight) -> None:
        self._desk, self._of_stories, self._sight = desk, stories, sight

    def operations(self) -> dict[str, McpOperation]:
        """Each tool by its name."""
        read = True
        one = "of a work session of an engineer"
        return {
            "list_work_sessions": McpOperation(
                "Where the engineers of a story are at work.", OfStory, self._list, read
            ),
            "show_work_session": McpOperation(f"Turns and calls {one}.", _Show, self._show, read),
            "session_output": McpOperation(f"Lines of what a call {one} printed.", _Output, self._output, read),
            "story_diff": McpOperation("What differs between two trees of a story.", _Diff, self._diff, read),
            "tell_session": McpOperation("Say something to an engineer at work.", _Tell, self._tell),
            "stop_session": McpOperation("End a work session with the files that it has.", _Stop, self._stop),
            "fork_session": McpOperation("Begin a further session from a turn of another.", _Fork, self._fork),
        }

    @property
    def _stories(self) -> StoryDesk:
        if self._of_stories is None:
            raise StoreUnavailable("this front has no reads of stories wired")
        return self._of_stories

    @property
    def _sessions(self) -> SessionReader:
        return SessionReader(self._stories.planning, self._stories.blobs)

    async def _cut(self, args: OfStory, who: Principal) -> RowCut | None:
        return await self._sight.cut(who, await self._desk.state(args.story_id))

    async def _list(self, args: OfStory, who: Principal) -> Any:
        pages = await self._sessions.sessions(args.story_id, cut=await self._cut(args, who))
        return {"items": [page.model_dump(mode="json") for page in pages]}

    async def _show(self, args: _Show, who: Principal) -> Any:
        cut = await self._cut(args, who)
        return await self._sessions.session(args.story_id, args.session_id, after=args.after, limit=args.limit, cut=cut)

    async def _output(self, args: _Output, who: Principal) -> Any:
        cut = await self._cut(args, who)
        return await self._sessions.output(
            args.story_id, args.session_id, args.digest, first=args.from_line, limit=args.lines, cut=cut
        )

    async def _diff(self, args: _Diff, who: Principal) -> Any:
        changes = self._stories.changes(args.story_id, old=args.from_tree, new=args.to_tree, path=args.path)
        return diff_view(await changes)

    async def _tell(self, args: _Tell, who: Principal) -> Any:
        await self._send(args, TellSession(session_id=args.session_id, text=args.text), who, args.key)
        return await self._page(args, args.session_id, who)

    async def _stop(self, args: _Stop, who: Principal) -> Any:
        await self._send(args, StopSession(session_id=args.session_id, reason=args.reason), who, args.key)
        return await self._page(args, args.session_id, who)

    async def _fork(self, args: _Fork, who: Principal) -> Any:
        at_turn = {} if args.turn is None else {"turn": args.turn}
        await self._send(args, ForkSession(session_id=args.session_id, **at_turn), who, args.key)
        command = CommandId(f"{who}/{args.key}")
        return await self._page(args, await self._sessions.forked(args.story_id, command), who)

    async def _send(self, args: _OfWorkSession, sent: StoryCommand, who: Principal, key: str) -> None:
        check_key(key)
        # A session that the caller may not see is none, whatever the command would say of it.
        await self._page(args, args.session_id, who)
        await self._desk.require(args.story_id, sent, principal=who, key=key)

    async def _page(self, args: OfStory, session_id: str, who: Principal) -> Any:
        cut = await self._cut(args, who)
        return (await self._sessions.session(args.story_id, session_id, limit=1, cut=cut)).session
