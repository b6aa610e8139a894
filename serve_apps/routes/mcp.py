"""MCP server at /api/mcp: the runner's methods, a session's tools, reading of stories, and work sessions (AP-113).

Over the services that the HTTP front uses, so that roles, keys and refusals are the same. Stateless: every request
carries its bearer token, and any replica answers.
"""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from fleet.desk.planning import PlanningDesk
from fleet.desk.principals import PrincipalRegistry
from fleet.desk.stories import StoryDesk
from fleet.desk.tools.desk import ToolDesk
from fleet.desk.tools.tasks import TaskDesk
from fleet.events.codec import published
from fleet.kernel.errors import FleetError, InvalidInput, NotFound, SandboxUnavailable
from fleet.kernel.ids import EntityId, Principal, StoryId
from fleet.policy.rules.calls import CallArgs, ToolCall
from fleet.policy.runs.spec import FINAL_STATUSES
from fleet.policy.runs.task_spec import TaskSpec
from serve_apps.mcp_tools import IdempotencyKey, McpArgs, McpOperation, OfStory
from serve_apps.problems import internal_error, told
from serve_apps.requests import check_key
from serve_apps.sessions.mcp import WorkSessionTools
from serve_apps.sight import Sight
from serve_apps.wire.story import StoryList, damaged_views, story_view
from serve_apps.wire.tool import (
    SessionRequest,
    artifact_list,
    health_view,
    invocation_view,
    log_list,
    session_view,
    ticket_view,
    tool_list,
)

MCP_PATH = "/api/mcp"
_LONGEST_S = 600
_Wait = Annotated[float, Field(alias="timeoutSec", ge=0, le=_LONGEST_S)]


class _RunTask(McpArgs):
    spec: TaskSpec
    key: IdempotencyKey


class _OfTask(McpArgs):
    run_id: Annotated[EntityId, Field(alias="taskId")]
    story_id: Annotated[StoryId | None, Field(alias="storyId")] = None


class _AwaitResult(_OfTask):
    wait_s: _Wait = 0


class _StreamLogs(_OfTask):
    from_line: Annotated[int, Field(alias="fromLine", ge=1, le=10**12)] = 1
    limit: Annotated[int, Field(ge=1, le=1000)] = 500
    wait_s: _Wait = 0


class _CopyArtifacts(_OfTask):
    paths: Annotated[tuple[str, ...], Field(max_length=64)] = ()


class _Cancel(_OfTask):
    reason: Annotated[str, Field(max_length=2000)] = ""


class _OpenSession(SessionRequest):
    key: IdempotencyKey


class _OfSession(McpArgs):
    session_id: Annotated[EntityId, Field(alias="sessionId")]


class _Invoke(_OfSession):
    tool: Annotated[str, Field(max_length=40)]
    op: Annotated[str, Field(max_length=40)]
    args: CallArgs = Field(default_factory=dict)
    key: IdempotencyKey


class _OfInvocation(McpArgs):
    invocation_id: Annotated[EntityId, Field(alias="invocationId")]
    story_id: Annotated[StoryId | None, Field(alias="storyId")] = None
    wait_s: _Wait = 0


class _ListStories(McpArgs):
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(max_length=80)] | None = None


class _StoryEvents(OfStory):
    after: Annotated[int, Field(ge=0, le=10**12)] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class _Nothing(McpArgs):
    pass


class McpFront:
    """ASGI endpoint for POST requests of the streamable HTTP transport.

    Args:
        tools: None answers everything about tools and runs with `sandbox_unavailable`.
        stories: None answers everything about work sessions with `store_unavailable`.
    """

    def __init__(
        self,
        desk: PlanningDesk,
        registry: PrincipalRegistry,
        tools: ToolDesk | None,
        *,
        sight: Sight,
        stories: StoryDesk | None = None,
    ) -> None:
        self._desk, self._registry, self._desk_of_tools = desk, registry, tools
        self._sight = sight
        self._operations = self._all_operations() | WorkSessionTools(desk, stories, sight=sight).operations()
        server: Server[Any] = Server("swe-fleet", on_list_tools=self._listed, on_call_tool=self._called)
        self._manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
        self._is_running = False

    def run(self) -> AbstractAsyncContextManager[None]:
        """Requests are answered inside the block; once per front."""
        self._is_running = True
        return self._manager.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request is answered; Unauthenticated without a known bearer token (AP-1)."""
        self._registry.authenticate(Headers(scope=scope).get("authorization"))
        if not self._is_running:
            raise SandboxUnavailable("this front is still starting", missing="mcp")
        await self._manager.handle_request(scope, receive, send)

    async def _listed(
        self, context: ServerRequestContext[Any], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(
            tools=[
                Tool(
                    name=name,
                    description=operation.description,
                    input_schema=operation.args.model_json_schema(by_alias=True),
                    annotations=ToolAnnotations(read_only_hint=operation.is_read_only),
                )
                for name, operation in self._operations.items()
            ]
        )

    async def _called(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        try:
            document = await self._answer(context, params)
        except FleetError as error:
            return _result(told(error, f"MCP {params.name[:80]}").to_wire(), is_error=True)
        except Exception as error:
            # The boundary of a call: what is told of a defect of ours is that it happened (AP-7).
            told(FleetError(f"{type(error).__name__}: {error}"), f"MCP {params.name[:80]}")
            return _result(internal_error().to_wire(), is_error=True)
        return _result(document)

    async def _answer(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        # Not what the endpoint found: the request that a call belongs to is the one that says who calls.
        who = self._registry.authenticate(context.request.headers.get("authorization") if context.request else None)
        operation = self._operations.get(params.name)
        if operation is None:
            raise NotFound(f"there is no tool {params.name[:80]!r}", allowed=sorted(self._operations))
        try:
            args = operation.args.model_validate(params.arguments or {})
        except ValidationError as error:
            raise _invalid(error) from error
        named = args.spec.context.story_id if isinstance(args, _RunTask) else getattr(args, "story_id", None)
        if named is not None:
            story = await self._sight.require(who, StoryId(named))
            task = args.spec.context.task_id if isinstance(args, _RunTask) else getattr(args, "task_id", None)
            if task is not None:
                await self._sight.require_task(who, story, task)
        return await operation.do(args, who)

    @property
    def _tools(self) -> ToolDesk:
        if self._desk_of_tools is None:
            raise SandboxUnavailable("this front has no tools wired: nothing was started", missing="tools")
        return self._desk_of_tools

    @property
    def _tasks(self) -> TaskDesk:
        return TaskDesk(self._tools)

    # Operations.

    def _all_operations(self) -> dict[str, McpOperation]:
        read = True
        return {
            "run_task": McpOperation("Ask for a run in the sandbox; returns its taskId at once.", _RunTask, self._run),
            "await_result": McpOperation("How a run ended, or where it is.", _AwaitResult, self._await, read),
            "stream_logs": McpOperation("Lines of a run from a line number on.", _StreamLogs, self._logs, read),
            "copy_artifacts": McpOperation("Where declared outputs are.", _CopyArtifacts, self._copy, read),
            "cancel": McpOperation("End a run; one that is over is unchanged.", _Cancel, self._cancel),
            "health": McpOperation("What the sandbox enforces.", _Nothing, self._health, read),
            "open_session": McpOperation("Open a tool session in a story.", _OpenSession, self._open),
            "list_tools": McpOperation("Operations of a session with their arguments.", _OfSession, self._list, read),
            "invoke_tool": McpOperation("Call an operation in a session.", _Invoke, self._invoke),
            "show_invocation": McpOperation("Where a call is.", _OfInvocation, self._invocation, read),
            "list_stories": McpOperation("Stories by id, a page at a time.", _ListStories, self._stories, read),
            "show_story": McpOperation("One story as recorded now.", OfStory, self._story, read),
            "story_events": McpOperation("Events of a story behind a version.", _StoryEvents, self._events, read),
        }

    async def _run(self, args: _RunTask, who: Principal) -> Any:
        return ticket_view(await self._tasks.run_task(args.spec, principal=who, key=check_key(args.key)))

    async def _await(self, args: _AwaitResult, who: Principal) -> Any:
        return await self._tasks.await_result(args.run_id, principal=who, story_id=args.story_id, timeout_s=args.wait_s)

    async def _logs(self, args: _StreamLogs, who: Principal) -> Any:
        after = args.from_line - 1
        page = await self._tasks.logs(
            args.run_id, principal=who, story_id=args.story_id, after=after, limit=args.limit, wait_s=args.wait_s
        )
        listed = log_list(page, after=after).model_dump()
        if page.is_over:
            result = await self._tasks.await_result(args.run_id, principal=who, story_id=args.story_id, timeout_s=5)
            listed["status"] = result.status if result.status in FINAL_STATUSES else None
        return listed

    async def _copy(self, args: _CopyArtifacts, who: Principal) -> Any:
        return artifact_list(
            await self._tasks.copy_artifacts(args.run_id, args.paths, principal=who, story_id=args.story_id)
        )

    async def _cancel(self, args: _Cancel, who: Principal) -> Any:
        return await self._tasks.cancel(args.run_id, principal=who, story_id=args.story_id)

    async def _health(self, args: _Nothing, who: Principal) -> Any:
        return health_view(await self._tasks.health())

    async def _open(self, args: _OpenSession, who: Principal) -> Any:
        opened = await self._tools.open_session(
            args.story_id,
            principal=who,
            as_role=args.role,
            key=check_key(args.key),
            task_id=args.task_id,
            is_read_only=args.read_only,
        )
        return session_view(opened)

    async def _list(self, args: _OfSession, who: Principal) -> Any:
        return tool_list(self._tools.policy, await self._tools.tools(args.session_id, principal=who))

    async def _invoke(self, args: _Invoke, who: Principal) -> Any:
        call = ToolCall(tool=args.tool, op=args.op, args=args.args)
        key = check_key(args.key)
        return invocation_view(await self._tools.invoke(args.session_id, call, principal=who, key=key))

    async def _invocation(self, args: _OfInvocation, who: Principal) -> Any:
        invocation = await self._tools.invocation(
            args.invocation_id, principal=who, story_id=args.story_id, wait_s=args.wait_s
        )
        return invocation_view(invocation)

    async def _stories(self, args: _ListStories, who: Principal) -> Any:
        survey, sight = await self._desk.survey(), self._sight
        seen = [self._desk.line(sight.outlined(who, state)) for state in survey.states if sight.sees_story(who, state)]
        lines = [line for line in seen if args.cursor is None or line.story_id > args.cursor]
        following = lines[args.limit - 1].story_id if len(lines) > args.limit else None
        damaged = damaged_views(survey) if sight.sees_everything(who) else ()
        return StoryList(items=tuple(lines[: args.limit]), next_cursor=following, damaged=damaged)

    async def _story(self, args: OfStory, who: Principal) -> Any:
        state = await self._sight.shown(who, await self._desk.state(args.story_id))
        return story_view(state, self._desk.waiting_for(state))

    async def _events(self, args: _StoryEvents, who: Principal) -> Any:
        events = await self._desk.events(args.story_id, after=args.after, limit=args.limit)
        seen = await self._sight.events(who, await self._desk.state(args.story_id), events)
        return {"items": [published(event) for event in seen]}


def _result(document: Any, *, is_error: bool = False) -> CallToolResult:
    plain = document.model_dump(mode="json", by_alias=True) if isinstance(document, BaseModel) else document
    text = json.dumps(plain, ensure_ascii=False, default=str)
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=json.loads(text), is_error=is_error
    )


def _invalid(error: ValidationError) -> InvalidInput:
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    problems = [{"pointer": "/" + "/".join(map(str, e["loc"])), "code": e["type"], "message": e["msg"]} for e in errors]
    return InvalidInput("; ".join(f"{p['pointer']}: {p['message']}" for p in problems), problems=problems)
