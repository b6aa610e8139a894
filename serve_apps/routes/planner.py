"""Reads of stories over HTTP: lifecycle, plan, work, evidence, councils, context, graph and report."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from fleet.context.row_cut import RowCut
from fleet.desk.stories import StoryDesk
from fleet.desk.story_pages import Offer, PackView
from fleet.graph.story_graph import StoryGraph
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import Digest, EntityId, Principal, StoryId
from fleet.kernel.types import ReportFormat
from fleet.report.plan_layers import layers
from fleet.story.state import StoryState
from serve_apps.requests import Caller, Hash, Stories, Story
from serve_apps.routes.downloads import attachment
from serve_apps.sight import sight_of
from serve_apps.wire.blocks import blocks_of
from serve_apps.wire.council import (
    CouncilList,
    CouncilPage,
    PackList,
    PackPage,
    TimelineList,
    council_page,
    pack_page,
    timeline_list,
)
from serve_apps.wire.deployment import DeploymentList, deployment_list
from serve_apps.wire.evidence import (
    DiffView,
    FileEntryView,
    FileList,
    FileView,
    RunList,
    ScoreList,
    diff_view,
    file_view,
    run_list,
    score_list,
)
from serve_apps.wire.planner import (
    DecisionList,
    PlanView,
    QuestionList,
    TaskList,
    TransitionList,
    TreeCheckpointList,
    decision_list,
    plan_view,
    question_list,
    task_list,
    transition_list,
    tree_checkpoint_list,
)

planner_router = APIRouter(prefix="/api")

_STORY = "/planner/stories/{story_id}"
Limit = Annotated[int, Query(ge=1, le=200)]
Path = Annotated[str, Query(min_length=1, max_length=4096)]
_MEDIA = {"md": "text/markdown; charset=utf-8", "html": "text/html; charset=utf-8", "json": "application/json"}


async def _shown(request: Request, stories: StoryDesk, who: Principal, story_id: StoryId) -> StoryState:
    """The story with what the caller sees of it."""
    return await sight_of(request).shown(who, await stories.planning.state(story_id))


async def _cut(request: Request, stories: StoryDesk, who: Principal, story_id: StoryId) -> RowCut | None:
    return await sight_of(request).cut(who, await stories.planning.state(story_id))


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest(text)


@planner_router.get(
    _STORY + "/transitions",
    response_model=TransitionList,
    operation_id="transitions_api_planner_stories__story_id__transitions_get",
)
async def transitions(request: Request, stories: Stories, who: Caller, story_id: Story) -> TransitionList:
    """The events that are legal now, with each guard's value."""
    state = await stories.planning.state(story_id)
    cut = await sight_of(request).cut(who, state)
    offers = await stories.transitions(story_id)
    return transition_list(state.state, offers if cut is None else tuple(_cut_offer(offer, cut) for offer in offers))


def _cut_offer(offer: Offer, cut: RowCut) -> Offer:
    """The offer without what a guard says of hidden rows."""
    told = {"message": None, "evidence": ()}
    return replace(offer, guards=tuple(g.model_copy(update=told) if cut.names(g) else g for g in offer.guards))


@planner_router.get(
    _STORY + "/plan", response_model=PlanView, operation_id="plan_api_planner_stories__story_id__plan_get"
)
async def plan(request: Request, stories: Stories, who: Caller, story_id: Story) -> PlanView:
    """The adopted plan with its tasks and layers, and every plan version."""
    state = await _shown(request, stories, who, story_id)
    edges = [(d.from_, d.to) for d in state.plan.proposal.dependencies] if state.plan else []
    return plan_view(state, layers(state.tasks, edges).layers)


@planner_router.get(
    _STORY + "/tasks", response_model=TaskList, operation_id="tasks_api_planner_stories__story_id__tasks_get"
)
async def tasks(request: Request, stories: Stories, who: Caller, story_id: Story) -> TaskList:
    """The tasks and where each stands."""
    return task_list(await _shown(request, stories, who, story_id))


@planner_router.get(
    _STORY + "/checkpoints",
    response_model=TreeCheckpointList,
    operation_id="story_checkpoints_api_planner_stories__story_id__checkpoints_get",
)
async def story_checkpoints(request: Request, stories: Stories, who: Caller, story_id: Story) -> TreeCheckpointList:
    """The trees that the story can be set back to, with what each was saved after and where the tasks stood."""
    return tree_checkpoint_list(await _shown(request, stories, who, story_id))


@planner_router.get(
    _STORY + "/deployments",
    response_model=DeploymentList,
    operation_id="deployments_api_planner_stories__story_id__deployments_get",
)
async def deployments(request: Request, stories: Stories, who: Caller, story_id: Story) -> DeploymentList:
    """Where the story was deployed, how it has been since, and what was seen to be wrong."""
    return deployment_list(await _shown(request, stories, who, story_id))


@planner_router.get(
    _STORY + "/decisions",
    response_model=DecisionList,
    operation_id="decisions_api_planner_stories__story_id__decisions_get",
)
async def decisions(request: Request, stories: Stories, who: Caller, story_id: Story) -> DecisionList:
    """The decisions with rationale and alternatives."""
    return decision_list(await _shown(request, stories, who, story_id))


@planner_router.get(
    _STORY + "/questions",
    response_model=QuestionList,
    operation_id="questions_api_planner_stories__story_id__questions_get",
)
async def questions(request: Request, stories: Stories, who: Caller, story_id: Story) -> QuestionList:
    """The questions and their answers."""
    return question_list(await _shown(request, stories, who, story_id))


@planner_router.get(
    _STORY + "/scores", response_model=ScoreList, operation_id="scores_api_planner_stories__story_id__scores_get"
)
async def scores(request: Request, stories: Stories, who: Caller, story_id: Story) -> ScoreList:
    """What was measured of each tree: tests, coverage, findings, score and verdict."""
    return score_list(await _shown(request, stories, who, story_id))


@planner_router.get(
    _STORY + "/runs", response_model=RunList, operation_id="runs_api_planner_stories__story_id__runs_get"
)
async def runs(
    request: Request,
    stories: Stories,
    who: Caller,
    story_id: Story,
    limit: Limit = 50,
    cursor: Annotated[int | None, Query(ge=0, le=10**9)] = None,
) -> RunList:
    """Runs and tool calls of the story, the newest first; `cursor` is that of the page before."""
    runs = await stories.runs(story_id, cut=await _cut(request, stories, who, story_id))
    end = len(runs) if cursor is None else min(cursor, len(runs))
    start = max(0, end - limit)
    return run_list(story_id, runs[start:end][::-1], str(start) if start else None)


@planner_router.get(
    _STORY + "/diff", response_model=DiffView, operation_id="diff_api_planner_stories__story_id__diff_get"
)
async def diff(
    stories: Stories,
    who: Caller,
    story_id: Story,
    old: Annotated[str | None, Query(alias="from", max_length=80)] = None,
    new: Annotated[str | None, Query(alias="to", max_length=80)] = None,
    path: Annotated[str | None, Query(max_length=4096)] = None,
) -> DiffView:
    """What differs between two trees of the story; from its base to its present tree unless they are named."""
    return diff_view(await stories.changes(story_id, old=_digest(old), new=_digest(new), path=path))


@planner_router.get(
    _STORY + "/files", response_model=FileList, operation_id="files_api_planner_stories__story_id__files_get"
)
async def files(
    stories: Stories, who: Caller, story_id: Story, tree: Annotated[str | None, Query(max_length=80)] = None
) -> FileList:
    """The files of a tree of the story, the present one unless it is named."""
    chosen, entries = await stories.files(story_id, _digest(tree))
    return FileList(tree=chosen, items=tuple(FileEntryView(path=path, mode=mode) for path, mode in entries))


@planner_router.get(
    _STORY + "/file", response_model=FileView, operation_id="file_api_planner_stories__story_id__file_get"
)
async def file(
    stories: Stories, who: Caller, story_id: Story, path: Path, tree: Annotated[str | None, Query(max_length=80)] = None
) -> FileView:
    """One file of a tree of the story."""
    return file_view(await stories.file(story_id, _digest(tree), path))


@planner_router.get(
    _STORY + "/blobs/{digest}",
    response_class=Response,
    operation_id="blob_api_planner_stories__story_id__blobs__digest__get",
)
async def blob(request: Request, stories: Stories, who: Caller, story_id: Story, digest: Hash) -> Response:
    """The bytes of whatever an event of the story names: reports, cards, replies, documents."""
    cut = await _cut(request, stories, who, story_id)
    try:
        return await attachment(await stories.named(story_id, digest, cut=cut), digest.hex)
    except ArtifactNotFound:
        if cut is not None:
            await sight_of(request).refused(who, "read_blob", digest)
        raise


@planner_router.get(
    _STORY + "/timeline",
    response_model=TimelineList,
    operation_id="timeline_api_planner_stories__story_id__timeline_get",
)
async def timeline(
    request: Request,
    stories: Stories,
    who: Caller,
    story_id: Story,
    after: Annotated[int, Query(ge=0, le=10**9)] = 0,
    limit: Limit = 200,
) -> TimelineList:
    """Events in words, in order, from a version on."""
    cut = await _cut(request, stories, who, story_id)
    return timeline_list(await stories.timeline(story_id, after=after, limit=limit, cut=cut), limit=limit)


@planner_router.get(
    _STORY + "/councils",
    response_model=CouncilList,
    operation_id="councils_api_planner_stories__story_id__councils_get",
)
async def councils(request: Request, stories: Stories, who: Caller, story_id: Story) -> CouncilList:
    """The councils with candidates, evidence and votes."""
    return CouncilList(items=await stories.councils(story_id, cut=await _cut(request, stories, who, story_id)))


@planner_router.get(
    _STORY + "/councils/{council_id}",
    response_model=CouncilPage,
    operation_id="council_api_planner_stories__story_id__councils__council_id__get",
)
async def council(request: Request, stories: Stories, who: Caller, story_id: Story, council_id: str) -> CouncilPage:
    """One council with its timeline and minority report."""
    cut = await _cut(request, stories, who, story_id)
    if cut is not None and cut.names(council_id):
        await sight_of(request).refused(who, "read_council", council_id)
    return council_page(await stories.council(story_id, council_id, cut=cut))


@planner_router.get(
    _STORY + "/report", response_class=Response, operation_id="report_api_planner_stories__story_id__report_get"
)
async def report(
    request: Request,
    stories: Stories,
    who: Caller,
    story_id: Story,
    format: ReportFormat = "md",
    as_of: Annotated[int | None, Query(ge=1, le=10**9)] = None,
) -> Response:
    """The technical report of the story, at its latest version unless one is named."""
    await sight_of(request).require_whole(who, story_id, "report", action="read_report")
    raw = await stories.rendered(story_id, format, as_of=as_of)
    # A report holds what people and models wrote: shown in a browser it runs nothing and loads nothing.
    policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return Response(raw, media_type=_MEDIA[format], headers={"Content-Security-Policy": policy})


@planner_router.get(
    "/context/{story_id}/graph", response_model=StoryGraph, operation_id="graph_api_context__story_id__graph_get"
)
async def graph(
    request: Request,
    stories: Stories,
    who: Caller,
    story_id: Story,
    depth: Annotated[int, Query(ge=1, le=3)] = 2,
    limit: Annotated[int, Query(ge=1, le=400)] = 200,
) -> StoryGraph:
    """Nodes and relationships around the story."""
    return await stories.graph(story_id, depth=depth, max_nodes=limit, cut=await _cut(request, stories, who, story_id))


@planner_router.get(
    "/context/{story_id}/packs", response_model=PackList, operation_id="packs_api_context__story_id__packs_get"
)
async def packs(request: Request, stories: Stories, who: Caller, story_id: Story) -> PackList:
    """What every role sees in every phase, in tokens, without the texts."""
    state = await stories.planning.state(story_id)
    shown = await sight_of(request).ids(who, state)
    blocks = {role: blocks_of(request, "", role, state.language) for role, _ in stories.cells()}
    around = {role: block.around for role, block in blocks.items() if block is not None}
    packs = await stories.packs(story_id, shown=shown, around=around)
    return PackList(story_id=story_id, items=tuple(pack_page(story_id, view, with_text=False) for view in packs))


@planner_router.get(
    "/context/{story_id}/{role}/{phase}",
    response_model=PackPage,
    operation_id="pack_api_context__story_id___role___phase__get",
)
async def pack(
    request: Request,
    stories: Stories,
    who: Caller,
    story_id: Story,
    role: str,
    phase: str,
    task_id: Annotated[str | None, Query(max_length=80)] = None,
    token_budget: Annotated[int | None, Query(ge=512, le=1_000_000)] = None,
    min_version: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> PackPage:
    """The context pack of one role in one phase; a `token_budget` takes the place of the one of the role."""
    role, phase = _canonical(role, _ROLES), _canonical(phase, _PHASES)
    task = EntityId(task_id) if task_id is not None else None
    state = await stories.planning.state(story_id)
    as_of = max(state.version, min_version)
    shown = await sight_of(request).ids(who, state)
    if shown is not None and task in state.tasks and task not in shown:
        await sight_of(request).refused(who, "read_task", str(task))
    blocks = blocks_of(request, "", role, state.language)
    pack = await stories.pack(
        story_id,
        role,
        phase,
        task_id=task,
        as_of=as_of,
        token_budget=token_budget,
        shown=shown,
        around=blocks.around if blocks else (),
    )
    told = replace(blocks, context=pack.text) if blocks else None
    return pack_page(story_id, PackView(role, phase, pack), with_text=True, blocks=told)


_ROLES = {
    "arch": "architect",
    "dev": "developer",
    "engineer": "developer",
    "ops": "devops",
    "data_engineer": "data",
    "product_owner": "po",
}
_PHASES = {"doc": "DOCS", "docs": "DOCS", "design": "DESIGN", "build": "BUILD", "test": "TEST"}


def _canonical(name: str, aliases: dict[str, str]) -> str:
    """The name that the product uses for an alias (GL-6); any other stays as it is."""
    return aliases.get(name.lower(), name.lower() if aliases is _ROLES else name)
