"""How a command on a story is sent and answered, whichever route it came by (AP-2..AP-4)."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from fleet.desk.planning import Pending, PlanningDesk, recorded_body
from fleet.kernel.errors import FleetError, MalformedRequest, OwnershipError, PreconditionFailed, StoreError
from fleet.kernel.ids import CommandId, Principal, StoryId
from fleet.redaction.redact_counts import redacted_fields
from fleet.story.commands.command import StoryCommand
from serve_apps.observed import note_command
from serve_apps.sight import require_sight, sight_of
from serve_apps.tracing import TRACE_HEADER, trace_id_of
from serve_apps.wire.story import CommandView, RedactionView, StoryView, Wire, story_view


async def view_of(request: Request, desk: PlanningDesk, story_id: StoryId, *, who: Principal) -> StoryView:
    """The story as the API shows it to the caller."""
    state = await sight_of(request).shown(who, await desk.state(story_id))
    return story_view(state, desk.waiting_for(state))


def shown(view: StoryView, *, status: int = 200) -> Response:
    """The answer that holds a story, with its version as entity tag (AP-3)."""
    return tagged(view, view.version, status=status)


def tagged(view: Wire, version: int, *, status: int = 200) -> Response:
    """The answer that holds a part of a story, with the version of the story as entity tag (AP-3)."""
    headers = {"ETag": f'"v{version}"', "X-Fleet-As-Of": str(version)}
    return JSONResponse(view.model_dump(mode="json"), status_code=status, headers=headers)


def check_version(header: str | None, version: int) -> None:
    """Returns when If-Match names this version or is not sent; PreconditionFailed with the version otherwise (AP-3)."""
    if header is None or header.strip() == "*":
        return
    tags = [tag.strip() for tag in header.split(",")]
    if any(not (tag.startswith('"v') and tag.endswith('"') and tag[2:-1].isdecimal()) for tag in tags):
        raise MalformedRequest(f'If-Match must hold entity tags such as "v{version}"')
    if f'"v{version}"' not in tags:
        raise PreconditionFailed(
            f"the story is at version {version} and If-Match names {header[:80]}: read it again, then decide",
            version=version,
        )


async def _is_answered(desk: PlanningDesk, command_id: CommandId) -> bool:
    """Whether the key has its answer: then that is given again, whatever the version is by now (AP-2)."""
    try:
        return await desk.answer(command_id) is not None
    except (StoreError, OwnershipError):
        raise
    except FleetError:
        return True


@dataclass(frozen=True, slots=True)
class Sent:
    """A command that went to the owner of its story, and was carried out unless it is pending."""

    story_id: StoryId
    command_id: CommandId
    is_pending: bool
    redactions: tuple[RedactionView, ...]

    def pending(self) -> Response:
        """Where its outcome can be asked for (AP-4)."""
        url = f"/api/commands/{self.command_id}"
        view = CommandView(command_id=self.command_id, status="pending", status_url=url, redactions=self.redactions)
        return JSONResponse(view.model_dump(), status_code=202, headers={"Location": url})


async def send(
    request: Request,
    desk: PlanningDesk,
    story_id: str,
    sent: StoryCommand,
    *,
    who: Principal,
    key: str,
    created: bool = False,
) -> Sent:
    """The command is with the owner of a story that the caller sees; If-Match is checked before."""
    # What is about to be created is not there yet; its project was looked at.
    story = (
        StoryId(story_id) if sent.command == "create_story" else await require_sight(request, who, StoryId(story_id))
    )
    header = request.headers.get("if-match")
    if header is not None and not created and not await _is_answered(desk, CommandId(f"{who}/{key}")):
        check_version(header, (await desk.state(story)).version)
    note_command(request.scope, story, CommandId(f"{who}/{key}"))
    trace_id = trace_id_of(request.headers.get(TRACE_HEADER))
    body = recorded_body(sent)
    answer = await desk.command(story, sent, principal=who, key=key, trace_id=trace_id, body=body)
    taken = redacted_fields(sent.body(), body)
    views = tuple(RedactionView(field=row.field, kind=row.kind, count=row.count) for row in taken)
    return Sent(story, CommandId(f"{who}/{key}"), isinstance(answer, Pending), views)


async def answered(
    request: Request,
    desk: PlanningDesk,
    story_id: str,
    sent: StoryCommand,
    *,
    who: Principal,
    key: str,
    created: bool = False,
) -> Response:
    """The story after the command, or where its outcome can be asked for (AP-4)."""
    came = await send(request, desk, story_id, sent, who=who, key=key, created=created)
    if came.is_pending:
        return came.pending()
    view = await view_of(request, desk, came.story_id, who=who)
    return shown(view.model_copy(update={"redactions": came.redactions}), status=201 if created else 200)


async def carried_out(
    request: Request,
    desk: PlanningDesk,
    story_id: str,
    sent: StoryCommand,
    *,
    who: Principal,
    key: str,
    created: bool = False,
) -> Response | None:
    """None once the command is carried out, else where its outcome can be asked for."""
    came = await send(request, desk, story_id, sent, who=who, key=key, created=created)
    return came.pending() if came.is_pending else None
