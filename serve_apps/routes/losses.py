"""Accepting over HTTP that the end of a stream is lost: by an admin, signed by the notary (AP-95, EV-19)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from fleet.audit.loss import Loss
from fleet.desk.principals import PrincipalRegistry
from fleet.kernel.errors import PolicyDenied, StoryNotFound
from fleet.kernel.ids import Principal, StoryId, StreamId
from fleet.kernel.types import ReasonRequest
from fleet.projects.platform_commands import AcceptLoss
from serve_apps.requests import Caller, Key, require_one_of
from serve_apps.routes.fleet_state import Fleet, platform_command
from serve_apps.sight import require_project, sees_project, sight_of
from serve_apps.wire.story import Wire

loss_router = APIRouter(prefix="/api")


class LossView(Wire):
    """The signed record of a loss: what checkpoints up to `sequence` attest after version `kept` is excused."""

    stream: str
    is_new: bool
    """False when the same loss was accepted before."""
    lost: int
    """Attested events that are gone; 0 when as many or more stand in their place."""
    attested: int
    """Version that the newest checkpoint attests."""
    kept: int
    """The newest attested version that the log still holds."""
    present: int
    """Version from which the stream takes appends again."""
    sequence: int
    """The newest checkpoint at that time; 0 when there was none."""
    refusal: str
    """Why the stream took no appends; empty when it did."""
    accepted_by: str
    reason: str
    time: str


@loss_router.post(
    "/streams/{stream}/accept-loss",
    response_model=LossView,
    operation_id="accept_loss_api_streams__stream__accept_loss_post",
)
async def accept_loss(
    request: Request,
    fleet: Fleet,
    who: Caller,
    key: Key,
    stream: Annotated[str, Path(max_length=100)],
    body: ReasonRequest,
) -> Any:
    """Give up what a stream lost for good: it takes events again, and the graph has to be rebuilt afterwards.

    `stream` is `story:<id>`, `project:<id>`, `platform:main`, or the id of a story. Restore a newer log
    if there is one.
    """
    sent = AcceptLoss(stream=await _stream(request, who, stream), reason=body.reason)
    answer = await platform_command(request, fleet, sent, who, key)
    return answer if isinstance(answer, Response) else _view(answer)


async def _stream(request: Request, who: Principal, name: str) -> StreamId:
    """The stream, when the caller may give up what it lost: an admin, of its project."""
    registry: PrincipalRegistry = request.app.state.registry
    # Said before anything about the stream: whether it is there is not for everybody to ask.
    require_one_of(request, who, "admin", rule_id="AP-95")
    stream = StreamId(name) if ":" in name else StreamId.of_story(name)
    if registry.projects_of(who) is None:
        return stream
    if stream.startswith("story:"):
        project = await sight_of(request).desk.project_of(StoryId(stream.entity))
        if project is None or not sees_project(request, who, project):
            raise StoryNotFound(f"there is no story {stream.entity}", story_id=stream.entity)
    elif stream.startswith("project:"):
        require_project(request, who, stream.entity)
    else:
        raise PolicyDenied(f"{who} sees chosen projects only: name a stream of one", rule_id="project_not_held")
    return stream


def _view(answer: dict[str, Any]) -> LossView:
    loss = Loss.model_validate(answer["loss"])
    return LossView(
        stream=loss.stream,
        is_new=answer["is_new"],
        lost=loss.lost,
        attested=loss.attested.version,
        kept=loss.kept.version,
        present=loss.present.version,
        sequence=loss.sequence,
        refusal=loss.refusal,
        accepted_by=loss.accepted_by,
        reason=loss.reason,
        time=loss.time,
    )
