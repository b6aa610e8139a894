"""Context over HTTP beside packs: bundles for whoever goes on with a story, its changes, scopes to check (AP-69)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import Field

from fleet.context.bundle import RehydrationBundle
from fleet.context.row_cut import RowCut
from fleet.context.scope import Scope, check
from fleet.desk.context.rehydrate import Rehydrated, Rehydrator
from fleet.events.codec import decode
from fleet.events.context import ContextChanged
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import NotFound, StoreUnavailable
from fleet.story.commands.context import ChangeContext, Changes
from fleet.story.state import StoryState
from serve_apps.commanding import carried_out, tagged
from serve_apps.requests import Caller, Desk, Hash, Key, Stories, Story
from serve_apps.sight import sight_of
from serve_apps.wire.blocks import blocks_of
from serve_apps.wire.council import BlocksView
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at

rehydration_router = APIRouter(prefix="/api")

_MAX_TTL_S = 604_800
_LOOKED_AT = 400
"""Events before the version that an answer tells, among which its own are."""
Role = Annotated[str, Field(min_length=1, max_length=60)]


# Source: CX-40.
class RehydrateRequest(Wire):
    """For whom, and how much."""

    roles: Annotated[tuple[Role, ...], Field(max_length=50)] = ()
    """All that have a task when left out."""
    include_timeline: bool = True
    include_summaries: bool = True
    timeline_events: Annotated[int, Field(ge=1, le=500)] = 50
    persist_bundle: bool = False
    ttl_s: Annotated[int, Field(ge=60, le=_MAX_TTL_S)] = 86_400
    """Seconds for which a kept bundle lives after it was last used."""
    min_version: Annotated[int, Field(ge=0, le=10**9)] = 0


class BundleView(Wire):
    """A bundle, its hash, and where it can be read again while it is kept."""

    bundle: RehydrationBundle
    hash: str
    generated_at: str
    kept_at: str | None
    blocks: dict[str, BlocksView]
    """By role: its pack as canonical JSON, with what stands around it; the hash covers the bundle alone (CX-22)."""


class ScopeRequest(Wire):
    """Which scopes somebody means to give to a role in a phase."""

    phase: Annotated[str, Field(max_length=40)]
    role: Role
    provided: Annotated[tuple[str, ...], Field(max_length=100)] = ()


# Source: CX-4.
class ScopeVerdict(Wire):
    """Whether these are exactly the scopes of the cell."""

    allowed: bool
    missing: tuple[Scope, ...]
    extra: tuple[Scope, ...]


# Source: CX-45.
class ChangeRequest(Wire):
    """Changes that are recorded together, or not at all."""

    changes: Changes


class ChangeResult(Wire):
    """The version that the changes brought, a hash of them, and what each of them is about."""

    version: int
    hash: str
    entities: tuple[str, ...]
    warnings: tuple[str, ...]


def _rehydrator(request: Request, who: Caller) -> Rehydrator:
    rehydrator: Rehydrator | None = request.app.state.rehydrator
    if rehydrator is None:
        raise StoreUnavailable("this front has no bundles of context wired")
    return rehydrator


Bundles = Annotated[Rehydrator, Depends(_rehydrator)]


@rehydration_router.post(
    "/context/validate-scope",
    response_model=ScopeVerdict,
    operation_id="validate_scope_api_context_validate_scope_post",
)
async def validate_scope(stories: Stories, who: Caller, body: ScopeRequest) -> ScopeVerdict:
    """Whether a role may see exactly these scopes in a phase. Nothing is recorded."""
    verdict = check(stories.context, phase=body.phase, role=body.role, provided=body.provided)
    return ScopeVerdict.model_validate({"allowed": verdict.allowed, "missing": verdict.missing, "extra": verdict.extra})


@rehydration_router.post(
    "/context/{story_id}/rehydrate",
    response_model=BundleView,
    operation_id="rehydrate_api_context__story_id__rehydrate_post",
)
async def rehydrate(
    request: Request, desk: Desk, bundles: Bundles, who: Caller, story_id: Story, body: RehydrateRequest
) -> BundleView:
    """What roles need to go on with a story that they know nothing of, from its record alone."""

    async def cut_of(state: StoryState) -> RowCut | None:
        return await sight_of(request).cut(who, state)

    rehydrated = await bundles.build(
        story_id,
        roles=body.roles,
        timeline=body.timeline_events if body.include_timeline else 0,
        with_summaries=body.include_summaries,
        min_version=body.min_version,
        cut_of=cut_of,
    )
    if body.persist_bundle:
        await bundles.keep(rehydrated, ttl_s=body.ttl_s)
    language = (await desk.state(story_id)).language
    return _view(rehydrated, kept=body.persist_bundle, blocks=_blocks(request, rehydrated.bundle, language))


def _blocks(request: Request, bundle: RehydrationBundle, language: str) -> dict[str, BlocksView]:
    texts = {role: canonical_json(pack.model_dump(mode="json")).decode() for role, pack in bundle.packs.items()}
    parts = {role: blocks_of(request, text, role, language) for role, text in texts.items()}
    return {role: BlocksView(**asdict(blocks)) for role, blocks in parts.items() if blocks is not None}


def _view(rehydrated: Rehydrated, *, kept: bool, blocks: dict[str, BlocksView]) -> BundleView:
    bundle = rehydrated.bundle
    url = f"/api/context/{bundle.story_id}/bundles/{bundle.as_of}/{rehydrated.hash}"
    return BundleView(
        bundle=bundle,
        hash=rehydrated.hash,
        generated_at=at(rehydrated.made_ms),
        kept_at=url if kept else None,
        blocks=blocks,
    )


@rehydration_router.get(
    "/context/{story_id}/bundles/{version}/{digest}",
    response_model=RehydrationBundle,
    operation_id="kept_bundle_api_context__story_id__bundles__version___digest__get",
)
async def kept_bundle(
    request: Request,
    bundles: Bundles,
    who: Caller,
    story_id: Story,
    version: Annotated[int, Path(ge=1, le=10**9)],
    digest: Hash,
) -> RehydrationBundle:
    """A bundle that was kept; each time that it is read it lives on for its time."""
    cut = await sight_of(request).cut_again(who, story_id, None)
    try:
        return await bundles.kept(story_id, version, digest, cut=cut)
    except NotFound:
        if cut is not None:
            await sight_of(request).refused(who, "read_bundle", digest)
        raise


@rehydration_router.post(
    "/context/{story_id}/changes",
    response_model=ChangeResult,
    operation_id="change_context_api_context__story_id__changes_post",
)
async def change_context(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: ChangeRequest
) -> Any:
    """Make, settle and remove decisions, questions and milestones in one append."""
    sent = ChangeContext.model_validate(body.model_dump(mode="json", exclude_none=True))
    pending = await carried_out(request, desk, story_id, sent, who=who, key=key)
    if pending is not None:
        return pending
    version = (await desk.state(story_id)).version
    return tagged(await _result(desk, story_id, f"{who}/{key}", version, body), version)


async def _result(desk: Desk, story_id: Story, command_id: str, told: int, body: ChangeRequest) -> ChangeResult:
    for after in (max(0, told - _LOOKED_AT), 0):
        for event in await desk.events(story_id, after=after):
            if event.type == ContextChanged.type and event.command_id == command_id:
                changed = decode(event)
                assert isinstance(changed, ContextChanged)
                ids = tuple(str(change.entity_id) for change in changed.changes)
                return ChangeResult(
                    version=event.version, hash=changed.hash, entities=ids, warnings=_warnings(body, ids)
                )
    raise StoreUnavailable(f"what {command_id} recorded cannot be read now: ask again with the same key")


def _warnings(body: ChangeRequest, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Ids that somebody gave to what did not exist yet: the fleet names what it makes."""
    return tuple(
        f"changes/{number}: {change.entity_id} is recorded as {ids[number]}"
        for number, change in enumerate(body.changes)
        if change.operation == "CREATE" and change.entity_id not in (None, ids[number])
    )
