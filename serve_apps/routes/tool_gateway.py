"""Tools and runs over HTTP: sessions, calls, TaskSpecs, live lines and what was kept (AP-81, AP-82, AP-85, AP-89)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from fleet.config.settings import ServeSettings
from fleet.desk.tools.desk import ToolDesk
from fleet.desk.tools.records import Invocation as Call
from fleet.desk.tools.tasks import TaskDesk
from fleet.kernel.errors import FleetError, InvalidInput
from fleet.kernel.ids import EntityId, Principal, StepId, StoryId
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.task_spec import TaskResult, TaskSpec
from fleet.sandbox.port import LogPage
from serve_apps.problems import told
from serve_apps.requests import (
    Caller,
    Hash,
    Invocation,
    Key,
    NamedStory,
    Run,
    SelectedRole,
    Session,
    Story,
    Tasks,
    Tools,
    check_role,
)
from serve_apps.routes.downloads import attachment
from serve_apps.sight import require_sight, sight_of
from serve_apps.stream.sse import HEARTBEAT, RETRY, event_stream, sse_frame
from serve_apps.wire.tool import (
    ArtifactList,
    ArtifactView,
    CancelRequest,
    CopyRequest,
    InvocationView,
    JobLine,
    LogList,
    SessionRequest,
    SessionView,
    TicketView,
    ToolList,
    artifact_list,
    invocation_view,
    line_view,
    log_list,
    session_view,
    ticket_view,
    tool_list,
)

tool_router = APIRouter(prefix="/api")

_SETTLE_S = 10.0
"""From the last line of a run until its end is on record."""
_LINES = 500
Timeout = Annotated[float, Query(alias="timeoutSec", ge=0, le=600)]
FromLine = Annotated[int, Query(alias="fromLine", ge=1, le=10**12)]
Limit = Annotated[int, Query(ge=1, le=1000)]


# Sessions and calls.


async def _require_task(request: Request, who: Principal, story_id: StoryId, task_id: EntityId | None) -> None:
    """Returns when the caller sees the story and the task that is named; as if they were not there otherwise."""
    story = await require_sight(request, who, story_id)
    if task_id is not None:
        await sight_of(request).require_task(who, story, task_id)


@tool_router.get("/tools", response_model=ToolList, operation_id="list_tools_api_tools_get")
async def list_tools(tools: Tools) -> ToolList:
    """Every declared operation, with the digest of the active policy."""
    policy = tools.policy
    return tool_list(policy, tuple(policy.capabilities[name] for name in sorted(policy.capabilities)))


@tool_router.post(
    "/tools/sessions", status_code=201, response_model=SessionView, operation_id="open_session_api_tools_sessions_post"
)
async def open_session(
    request: Request, tools: Tools, who: Caller, key: Key, selected: SelectedRole, body: SessionRequest
) -> SessionView:
    """Open a tool session; the same Idempotency-Key opens it once."""
    check_role(selected, body.role)
    await _require_task(request, who, StoryId(body.story_id), body.task_id)
    opened = await tools.open_session(
        body.story_id,
        principal=who,
        as_role=body.role,
        key=key,
        task_id=body.task_id,
        is_read_only=body.read_only,
    )
    return session_view(opened)


@tool_router.get(
    "/tools/sessions/{session_id}",
    response_model=SessionView,
    operation_id="show_session_api_tools_sessions__session_id__get",
)
async def show_session(tools: Tools, who: Caller, session_id: Session) -> SessionView:
    """One's own session."""
    return session_view(await tools.session(session_id, principal=who))


@tool_router.delete(
    "/tools/sessions/{session_id}",
    status_code=204,
    response_class=Response,
    operation_id="close_session_api_tools_sessions__session_id__delete",
)
async def close_session(tools: Tools, who: Caller, key: Key, session_id: Session) -> Response:
    """End one's own session."""
    await tools.close_session(session_id, principal=who)
    return Response(status_code=204)


@tool_router.get(
    "/tools/sessions/{session_id}/tools",
    response_model=ToolList,
    operation_id="session_tools_api_tools_sessions__session_id__tools_get",
)
async def session_tools(tools: Tools, who: Caller, session_id: Session) -> ToolList:
    """The operations of the session, with their typed arguments."""
    return tool_list(tools.policy, await tools.tools(session_id, principal=who))


@tool_router.post(
    "/tools/sessions/{session_id}/invoke",
    response_model=InvocationView,
    operation_id="invoke_api_tools_sessions__session_id__invoke_post",
)
async def invoke(tools: Tools, who: Caller, key: Key, session_id: Session, body: ToolCall) -> Response:
    """Call a tool: its outcome when it ended within 5 seconds (200), else where to ask for it (202)."""
    return _called(await tools.invoke(session_id, body, principal=who, key=key))


@tool_router.get(
    "/tools/invocations/{invocation_id}",
    response_model=InvocationView,
    operation_id="show_invocation_api_tools_invocations__invocation_id__get",
)
async def show_invocation(
    tools: Tools, who: Caller, invocation_id: Invocation, story: NamedStory, timeout: Timeout = 0
) -> InvocationView:
    """One's own call, at the latest after `timeoutSec` seconds."""
    return invocation_view(await tools.invocation(invocation_id, principal=who, story_id=story, wait_s=timeout))


@tool_router.get(
    "/tools/invocations/{invocation_id}/logs",
    response_model=LogList,
    operation_id="invocation_logs_api_tools_invocations__invocation_id__logs_get",
)
async def invocation_logs(
    tools: Tools,
    who: Caller,
    invocation_id: Invocation,
    story: NamedStory,
    from_line: FromLine = 1,
    limit: Limit = _LINES,
) -> LogList:
    """What the run behind a finished call printed; no lines for a call without one."""
    invocation = await tools.invocation(invocation_id, principal=who, story_id=story)
    log = invocation.outcome.run_log if invocation.outcome else None
    if log is None:
        return log_list(LogPage((), is_over=invocation.status == "finished"), after=from_line - 1)
    raw = (await tools.blob(log)).decode(errors="replace").splitlines()
    lines = tuple(LogLine.model_validate_json(line) for line in raw[from_line - 1 : from_line - 1 + limit])
    return log_list(LogPage(lines, is_over=from_line - 1 + limit >= len(raw)), after=from_line - 1)


@tool_router.get(
    "/tools/invocations/{invocation_id}/artifacts",
    response_model=ArtifactList,
    operation_id="invocation_artifacts_api_tools_invocations__invocation_id__artifacts_get",
)
async def invocation_artifacts(tools: Tools, who: Caller, invocation_id: Invocation, story: NamedStory) -> ArtifactList:
    """What a finished call kept."""
    invocation = await tools.invocation(invocation_id, principal=who, story_id=story)
    kept = invocation.outcome.artifacts if invocation.outcome else ()
    return ArtifactList(
        items=tuple(
            ArtifactView(path=a.path, ref=a.blob, size_bytes=a.size_bytes, truncated=a.truncated, missing=not a.blob)
            for a in kept
        )
    )


def _called(call: Call) -> Response:
    view = invocation_view(call)
    is_over = call.status == "finished"
    headers = {} if is_over else {"Location": f"/api/tools/invocations/{view.invocation_id}"}
    return JSONResponse(view.model_dump(mode="json"), status_code=200 if is_over else 202, headers=headers)


# Runs.


@tool_router.post("/runs", status_code=202, response_model=TicketView, operation_id="run_task_api_runs_post")
async def run_task(
    request: Request, tasks: Tasks, who: Caller, key: Key, selected: SelectedRole, body: TaskSpec
) -> TicketView:
    """Ask for a run; the same Idempotency-Key asks for one run."""
    check_role(selected, body.context.role)
    await _require_task(request, who, body.context.story_id, body.context.task_id)
    return ticket_view(await tasks.run_task(body, principal=who, key=key))


@tool_router.get("/runs/{run_id}", response_model=TaskResult, operation_id="show_run_api_runs__run_id__get")
async def show_run(tasks: Tasks, who: Caller, run_id: Run, story: NamedStory) -> TaskResult:
    """Where one's own run is."""
    return await tasks.await_result(run_id, principal=who, story_id=story)


@tool_router.get(
    "/runs/{run_id}/result", response_model=TaskResult, operation_id="await_result_api_runs__run_id__result_get"
)
async def await_result(tasks: Tasks, who: Caller, run_id: Run, story: NamedStory, timeout: Timeout = 0) -> TaskResult:
    """How one's own run ended, or where it is after `timeoutSec` seconds."""
    return await tasks.await_result(run_id, principal=who, story_id=story, timeout_s=timeout)


@tool_router.post(
    "/runs/{run_id}/cancel", response_model=TaskResult, operation_id="cancel_run_api_runs__run_id__cancel_post"
)
async def cancel_run(
    tasks: Tasks, who: Caller, key: Key, run_id: Run, story: NamedStory, body: CancelRequest
) -> TaskResult:
    """End one's own run; one that is over is returned unchanged."""
    return await tasks.cancel(run_id, principal=who, story_id=story)


@tool_router.post(
    "/runs/{run_id}/artifacts",
    response_model=ArtifactList,
    operation_id="copy_artifacts_api_runs__run_id__artifacts_post",
)
async def copy_artifacts(tasks: Tasks, who: Caller, run_id: Run, story: NamedStory, body: CopyRequest) -> ArtifactList:
    """Where the declared outputs of one's own run are. It records nothing, so it needs no key."""
    return artifact_list(await tasks.copy_artifacts(run_id, body.paths, principal=who, story_id=story))


@tool_router.get("/runs/{run_id}/logs", response_model=LogList, operation_id="run_logs_api_runs__run_id__logs_get")
async def run_logs(
    request: Request,
    tasks: Tasks,
    who: Caller,
    run_id: Run,
    story: NamedStory,
    from_line: FromLine = 1,
    limit: Limit = _LINES,
    timeout: Timeout = 0,
    follow: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Any:
    """Lines of one's own run; `follow` streams them as server-sent events until the run ended, then how it did."""
    if not follow:
        page = await tasks.logs(run_id, principal=who, story_id=story, after=from_line - 1, limit=limit, wait_s=timeout)
        return log_list(page, after=from_line - 1)
    after = line_after(last_event_id, from_line - 1)

    async def ending() -> Any:
        result = await tasks.await_result(run_id, principal=who, story_id=story, timeout_s=_SETTLE_S)
        return result.model_dump(mode="json", by_alias=True)

    await tasks.await_result(run_id, principal=who, story_id=story)
    return await _followed(request, tasks, run_id, who=who, story=story, after=after, shown=line_view, ending=ending)


@tool_router.get(
    "/workspace/{run_id}/logs", response_model=list[JobLine], operation_id="job_logs_api_workspace__run_id__logs_get"
)
async def job_logs(
    request: Request,
    tasks: Tasks,
    who: Caller,
    run_id: Run,
    story: NamedStory,
    from_line: FromLine = 1,
    limit: Limit = _LINES,
    follow: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Any:
    """Lines of anybody's run in short form; `follow` streams them."""
    after = line_after(last_event_id, from_line - 1) if follow else from_line - 1
    story = await require_sight(request, who, await tasks.story_of(run_id, principal=None, story_id=story))
    await sight_of(request).require_step(who, story, f"run/{run_id}")
    page = await tasks.logs(run_id, principal=None, story_id=story, after=after, limit=limit)
    if not follow:
        return [_job_line(line) for line in page.lines]

    async def ending() -> Any:
        return {"is_over": True}

    return await _followed(request, tasks, run_id, who=None, story=story, after=after, shown=_job_line, ending=ending)


@tool_router.get(
    "/planner/stories/{story_id}/steps/{step_id:path}/logs",
    response_model=LogList,
    operation_id="step_logs_api_planner_stories__story_id__steps__step_id__logs_get",
)
async def step_logs(
    request: Request,
    tools: Tools,
    who: Caller,
    story_id: Story,
    step_id: str,
    from_line: FromLine = 1,
    limit: Limit = _LINES,
    timeout: Annotated[float, Query(alias="timeoutSec", ge=0, le=30)] = 0,
    follow: bool = False,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Any:
    """Lines of any run of a story, its own procedures' too; `follow` streams them until the run ended."""
    step = await sight_of(request).require_step(who, story_id, step_id)
    if not follow:
        page = await tools.step_logs(story_id, step, after=from_line - 1, limit=limit, wait_s=timeout)
        return log_list(page, after=from_line - 1)
    after = line_after(last_event_id, from_line - 1)
    await tools.step_logs(story_id, step, after=after, limit=1)
    heartbeat_s = float(request.app.state.settings.heartbeat_s)
    return event_stream(_step_frames(request, tools, story_id, step, after=after, heartbeat_s=heartbeat_s))


async def _step_frames(
    request: Request, tools: ToolDesk, story_id: StoryId, step: StepId, *, after: int, heartbeat_s: float
) -> AsyncIterator[str]:
    yield RETRY
    try:
        is_over = False
        while not is_over:
            page = await tools.step_logs(story_id, step, after=after, wait_s=heartbeat_s)
            for line in page.lines:
                after = line.n
                yield sse_frame(line_view(line).model_dump(), event="log", event_id=line.n)
            is_over = page.is_over
            if not page.lines and not is_over:
                yield HEARTBEAT
        yield sse_frame({"is_over": True}, event="end")
    except FleetError as error:
        yield sse_frame(told(error, f"GET {request.url.path}").to_wire(), event="error")


@tool_router.get("/artifacts/{digest}", response_class=Response, operation_id="artifact_api_artifacts__digest__get")
async def artifact(
    request: Request,
    tools: Tools,
    who: Caller,
    digest: Hash,
    story_id: Annotated[str, Query(alias="storyId", max_length=80)],
) -> Response:
    """The bytes of an output that a step of the story left."""
    story = await require_sight(request, who, StoryId(story_id))
    cut = await sight_of(request).cut_again(who, story, None)
    raw = await tools.artifact(story, digest, cut=cut)
    return await attachment(raw, digest.hex)


def _job_line(line: LogLine) -> JobLine:
    view = line_view(line)
    return JobLine(ts=view.ts, line=view.line, level=view.level)


# Live lines.


def line_after(last_event_id: str | None, fallback: int) -> int:
    """The number of the line after which to go on; InvalidInput for what is no line number."""
    if not last_event_id:
        return fallback
    if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) <= 12):
        raise InvalidInput(f"{last_event_id[:80]!r} is no line number", field="Last-Event-ID")
    return int(last_event_id)


async def _followed(
    request: Request,
    tasks: TaskDesk,
    run_id: EntityId,
    *,
    who: Principal | None,
    story: StoryId | None,
    after: int,
    shown: Callable[[LogLine], BaseModel],
    ending: Callable[[], Awaitable[Any]],
) -> StreamingResponse:
    settings: ServeSettings = request.app.state.settings
    named = await tasks.story_of(run_id, principal=who, story_id=story)

    async def frames() -> AsyncIterator[str]:
        yield RETRY
        try:
            lines = tasks.follow(
                run_id, principal=who, story_id=named, after=after, heartbeat_s=float(settings.heartbeat_s)
            )
            async for line in lines:
                yield HEARTBEAT if line is None else sse_frame(shown(line).model_dump(), event="log", event_id=line.n)
            yield sse_frame(await ending(), event="end")
        except FleetError as error:
            # The status line is sent already, so a fault is told as the last frame.
            yield sse_frame(told(error, f"GET {request.url.path}").to_wire(), event="error")

    return event_stream(frames())
