"""Councils over HTTP: ask for one, read all of them, end one, send its outcome back; pools (AP-77..AP-79)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from fleet.desk.councils import CouncilDesk, CouncilLine, CouncilStatus, PoolLine, pool_lines
from fleet.desk.platform import PlatformDesk
from fleet.desk.stories import StoryDesk
from fleet.kernel.errors import NotFound
from fleet.kernel.ids import Principal, StreamId
from fleet.owner.council_pools import pools_in_force
from fleet.projects.platform_commands import RemoveCouncilPool
from fleet.story.commands.councils import (
    CancelCouncil,
    CouncilAsk,
    CouncilReason,
    RejectCouncil,
    RequestCouncil,
    council_id_of,
)
from fleet.story.state import StoryState
from serve_apps.commanding import Sent, send
from serve_apps.requests import Caller, Desk, Key, NamedStory, Stories, require_one_of
from serve_apps.routes.fleet_state import Fleet, platform_command
from serve_apps.sight import sight_of
from serve_apps.wire.council import CouncilPage, council_page
from serve_apps.wire.councils import (
    CouncilAccepted,
    CouncilLineList,
    PoolList,
    PoolRemoved,
    PoolRequest,
    PoolView,
    line_view,
    pool_view,
)

council_router = APIRouter(prefix="/api")


def _councils(stories: Stories) -> CouncilDesk:
    return CouncilDesk(stories.planning)


Councils = Annotated[CouncilDesk, Depends(_councils)]


@council_router.post(
    "/councils", status_code=202, response_model=CouncilAccepted, operation_id="ask_council_api_councils_post"
)
async def ask_council(request: Request, desk: Desk, who: Caller, key: Key, body: CouncilAsk) -> Response:
    """Ask for a council about a story: it advises beside the story's own work, and moves nothing."""
    # What was left out takes its default where the owner checks the request.
    asked = RequestCouncil(**body.model_dump(exclude_none=True))
    return _accepted(await send(request, desk, body.story_id, asked, who=who, key=key))


@council_router.get("/councils", response_model=CouncilLineList, operation_id="list_councils_api_councils_get")
async def list_councils(
    request: Request,
    councils: Councils,
    who: Caller,
    story: NamedStory,
    status: CouncilStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=120)] = None,
) -> CouncilLineList:
    """Councils of all stories, or of one: the story's own and those on request."""
    lines = [
        line
        for line in sorted(await councils.lines(), key=_place)
        if await _sees(request, who, line.state, line.record.opened.council_id)
        and (story is None or line.state.story_id == story)
        and (status is None or line.status == status)
        and (cursor is None or _place(line) > cursor)
    ]
    page = lines[:limit]
    return CouncilLineList(
        items=tuple(line_view(line) for line in page), next_cursor=_place(page[-1]) if len(lines) > limit else None
    )


def _place(line: CouncilLine) -> str:
    return f"{line.state.story_id}/{line.record.opened_version:09d}"


@council_router.get(
    "/councils/{council_id}", response_model=CouncilPage, operation_id="show_council_api_councils__council_id__get"
)
async def show_council(
    request: Request, stories: Stories, councils: Councils, who: Caller, council_id: str
) -> CouncilPage:
    """One council with its question, its timeline, what won, the whole record of its outcome and who was against it."""
    state = await _seen(request, councils, who, council_id)
    return council_page(await stories.council(state.story_id, council_id, cut=await sight_of(request).cut(who, state)))


@council_router.post(
    "/councils/{council_id}/cancel",
    response_model=CouncilPage,
    operation_id="cancel_council_api_councils__council_id__cancel_post",
)
async def cancel_council(
    request: Request,
    desk: Desk,
    stories: Stories,
    councils: Councils,
    who: Caller,
    key: Key,
    council_id: str,
    body: CouncilReason,
) -> Any:
    """End a council that is at work. A story whose own council it was is parked until a person lets it go on."""
    state = await _seen(request, councils, who, council_id)
    cancel = CancelCouncil(council_id=council_id, reason=body.reason)
    sent = await send(request, desk, state.story_id, cancel, who=who, key=key)
    return (
        sent.pending()
        if sent.is_pending
        else council_page(await stories.council(sent.story_id, council_id, cut=await sight_of(request).cut(who, state)))
    )


@council_router.post(
    "/councils/{council_id}/reject",
    status_code=202,
    response_model=CouncilAccepted,
    operation_id="reject_council_api_councils__council_id__reject_post",
)
async def reject_council(
    request: Request, desk: Desk, councils: Councils, who: Caller, key: Key, council_id: str, body: CouncilReason
) -> Response:
    """Send the outcome of a council on request back: a new one is asked the same, and judged by the reason too."""
    state = await _seen(request, councils, who, council_id)
    sent = RejectCouncil(council_id=council_id, reason=body.reason)
    return _accepted(await send(request, desk, state.story_id, sent, who=who, key=key))


def _accepted(sent: Sent) -> Response:
    council_id = council_id_of(StreamId.of_story(sent.story_id), sent.command_id)
    url = f"/api/commands/{sent.command_id}" if sent.is_pending else f"/api/councils/{council_id}"
    view = CouncilAccepted(
        council_id=council_id,
        story_id=sent.story_id,
        status="pending" if sent.is_pending else "accepted",
        status_url=url,
        redactions=sent.redactions,
    )
    return JSONResponse(view.model_dump(mode="json"), status_code=202, headers={"Location": url})


async def _seen(request: Request, councils: CouncilDesk, who: Principal, council_id: str) -> StoryState:
    """The story of the council, when the caller sees it; what is hidden looks as if it were not there."""
    state = await councils.story_of(council_id)
    if not await _sees(request, who, state, council_id):
        await sight_of(request).refused(who, "read_council", council_id)
        raise NotFound(f"there is no council {council_id[:80]!r}", council_id=council_id[:80])
    return state


async def _sees(request: Request, who: Principal, state: StoryState, council_id: str) -> bool:
    sight = sight_of(request)
    return sight.sees_story(who, state) and council_id in (await sight.shown(who, state)).councils


class PoolsView:
    """The pools in force, for an admin."""

    def __init__(self, stories: StoryDesk, councils: CouncilDesk, fleet: PlatformDesk) -> None:
        self._stories, self._councils, self.fleet = stories, councils, fleet

    async def lines(self) -> tuple[PoolLine, ...]:
        """Each with what its seats do now."""
        pools = pools_in_force(self._stories.rules.council, await self.fleet.state())
        return pool_lines(pools, await self._councils.lines())

    async def one(self, role: str) -> PoolView:
        """That of the role. NotFound."""
        lines = await self.lines()
        pool_line = next((pool for pool in lines if pool.role == role), None)
        if pool_line is None:
            roles = [pool.role for pool in lines]
            raise NotFound(f"there is no pool of role {role[:60]!r}; there are: {', '.join(roles)}", allowed=roles)
        return pool_view(pool_line)


def _pools(request: Request, stories: Stories, councils: Councils, fleet: Fleet, who: Caller) -> PoolsView:
    require_one_of(request, who, "admin", rule_id="AP-79")
    return PoolsView(stories, councils, fleet)


Pools = Annotated[PoolsView, Depends(_pools)]
NamedRole = Annotated[str, Path(max_length=60)]


@council_router.get("/council-pools", response_model=PoolList, operation_id="list_pools_api_council_pools_get")
async def list_pools(pools: Pools) -> PoolList:
    """The pools in force, with what their seats do now."""
    return PoolList(items=tuple(pool_view(pool) for pool in await pools.lines()))


@council_router.get(
    "/council-pools/{role}", response_model=PoolView, operation_id="show_pool_api_council_pools__role__get"
)
async def show_pool(pools: Pools, role: NamedRole) -> PoolView:
    """The pool of one role."""
    return await pools.one(role)


@council_router.put(
    "/council-pools/{role}", response_model=PoolView, operation_id="set_pool_api_council_pools__role__put"
)
async def set_pool(request: Request, pools: Pools, who: Caller, key: Key, role: NamedRole, body: PoolRequest) -> Any:
    """Staff the councils of a role that open from here on; those that are open keep their seats."""
    answer = await platform_command(request, pools.fleet, body.to_command(role), who, key)
    return answer if isinstance(answer, Response) else await pools.one(role)


@council_router.delete(
    "/council-pools/{role}", response_model=PoolRemoved, operation_id="remove_pool_api_council_pools__role__delete"
)
async def remove_pool(request: Request, pools: Pools, who: Caller, key: Key, role: NamedRole) -> Any:
    """The role has no pool any more, whoever set it: councils that open from here on have the defaults."""
    answer = await platform_command(request, pools.fleet, RemoveCouncilPool(role=role), who, key)
    return answer if isinstance(answer, Response) else PoolRemoved(role=role, version=answer["version"])
