"""What people read of a story beyond its state: plans, diffs, councils, packs, graph and report. From the log alone.

No actor is asked, so everything here is there while agents, engines and sandboxes are not (AP-98).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from fleet.context.port import Pack, PackRequest, Packs
from fleet.context.row_cut import RowCut
from fleet.context.scope import ContextConfig
from fleet.council.delphi import estimate_rounds
from fleet.desk.context.whole_packs import WholePacks
from fleet.desk.planning import PlanningDesk
from fleet.desk.shown_text import shown_name
from fleet.desk.story_pages import CouncilView, Offer, PackView, RunLine, run_line
from fleet.desk.tree_view import FileText, TreeChanges, file_at, tree_changes
from fleet.events.codec import decode
from fleet.events.council import CouncilDecided, CouncilUndecided
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import StepFinished
from fleet.events.workspace import WorkspaceReported
from fleet.graph.story_graph import StoryGraph, nodes_of, story_graph
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ArtifactNotFound, ContextTooLarge, InvalidInput, NotFound, PolicyDenied
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.kernel.types import ReportFormat
from fleet.owner.definitions import Definitions
from fleet.redaction.redact_json import redact_json
from fleet.report.councils import CouncilSummary, council_summaries
from fleet.report.model import TechnicalReport, TimelineRow
from fleet.report.service.reports import ReportService, render
from fleet.report.timeline import describe
from fleet.story.guards import GuardContext, evaluate
from fleet.story.state import CouncilRecord, StoryState
from fleet.story.tool_steps import known_trees
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree

MAX_NODES = 400
_RUNS = ("run", "tool", "merge")


class StoryDesk:
    """Reads of stories for people.

    Args:
        rules: the lifecycles, whose transitions are offered.
        context: which role sees what in which phase.
        digests: of the files of rules in force, by name.
    """

    def __init__(
        self,
        *,
        planning: PlanningDesk,
        blobs: BlobStore,
        packs: Packs,
        reports: ReportService,
        rules: Definitions,
        context: ContextConfig,
        clock: Clock,
        digests: Mapping[str, Digest] = MappingProxyType({}),
    ) -> None:
        self.planning, self.rules, self.context, self.digests = planning, rules, context, digests
        self._blobs, self._packs, self._reports, self._clock = blobs, WholePacks(packs), reports, clock

    @property
    def now_ms(self) -> int:
        """The present, in milliseconds since 1970 UTC."""
        return self._clock.now_ms()

    @property
    def blobs(self) -> BlobStore:
        """Where the files and outputs of stories lie."""
        return self._blobs

    async def blob(self, digest: Digest) -> bytes:
        """The bytes of a blob that a report or document of a story names. What may be shown is for the caller to know.

        Raises ArtifactNotFound when retention has deleted it.
        """
        return await self._blobs.get(digest)

    async def history(self, story_id: StoryId, *, cut: RowCut | None = None) -> list[tuple[StoredEvent, Payload]]:
        """Every event of the story, of a cut those that it shows, with its payload. StoryNotFound."""
        events = await self.planning.events(story_id)
        return [(event, decode(event)) for event in events if cut is None or cut.takes(event)]

    async def transitions(self, story_id: StoryId) -> tuple[Offer, ...]:
        """The events that are legal in its state, each with its guards' values now (LC-9); none of one that rests."""
        state = await self.planning.state(story_id)
        if state.closed or state.disposition != "active":
            return ()
        now_ms, fsm = self._clock.now_ms(), self.planning.fsm_of(state)
        offers: list[Offer] = []
        for row in fsm.lifecycles[state.lifecycle].legal(state.state):
            guards = evaluate(state, GuardContext(config=fsm, now_ms=now_ms, transition=row))
            is_human = row.kind == "gate" and row.gate is not None
            offers.append(
                Offer(row, guards, is_human and fsm.gate(state.lifecycle, row.gate or row.event).actor == "human")
            )
        return tuple(offers)

    async def report(self, story_id: StoryId, *, as_of: int | None = None) -> TechnicalReport:
        """The technical report as a value."""
        return await self._reports.build(story_id, as_of=as_of)

    async def rendered(self, story_id: StoryId, format: ReportFormat, *, as_of: int | None = None) -> bytes:
        """The technical report in one format (AP-88)."""
        return render(await self._reports.build(story_id, as_of=as_of), format)

    async def timeline(
        self, story_id: StoryId, *, after: int = 0, limit: int = 200, cut: RowCut | None = None
    ) -> list[TimelineRow]:
        """Events in words, in order; of a cut those that it shows."""
        if cut is None:
            events = await self.planning.events(story_id, after=after, limit=limit)
        else:
            later = await self.planning.events(story_id, after=after)
            events = [event for event in later if cut.takes(event)][:limit]
        return [_row(event, decode(event)) for event in events]

    # Councils.

    async def councils(self, story_id: StoryId, *, cut: RowCut | None = None) -> tuple[CouncilSummary, ...]:
        """Every council of the story in the order of opening; of a cut those that it shows."""
        summaries = council_summaries(await self.history(story_id))
        return tuple(council for council in summaries if cut is None or not cut.names(council))

    async def council(self, story_id: StoryId, council_id: str, *, cut: RowCut | None = None) -> CouncilView:
        """One council with its timeline and minority report (AP-77). NotFound when the story has none by this id.

        Of a cut the documents of a council on a shown task alone are read: any other weighs the whole story.
        """
        events = await self.history(story_id)
        summary = next((c for c in await self.councils(story_id, cut=cut) if c.council_id == council_id), None)
        if summary is None:
            raise NotFound(f"story {story_id} has no council {council_id!r}", council_id=council_id)
        own = [(e, p) for e, p in events if getattr(p, "council_id", None) == council_id]
        ends = [p for _, p in own if isinstance(p, CouncilDecided | CouncilUndecided)]
        council = (await self.planning.state(story_id)).councils[council_id]
        rows = tuple(_row(e, p) for e, p in own if cut is None or cut.takes(e))
        if cut is not None and council.opened.task_id not in cut.rows.shown:
            return CouncilView(summary, rows, None)
        minority = await self.minority(summary)
        asked = await self._json(council.opened.request_digest)
        answer = await self._json(_chosen(council))
        record = await self._json(ends[0].record_digest if ends else None)
        reasons = await self._reasons(council, is_over=bool(ends))
        minority, asked, answer, record, reasons = (
            None if cut is not None and cut.names(value) else value
            for value in (minority, asked, answer, record, reasons)
        )
        return CouncilView(summary, rows, minority, asked=asked, answer=answer, record=record, reasons=reasons or ())

    async def _reasons(self, record: CouncilRecord, *, is_over: bool) -> tuple[tuple[str, ...], ...]:
        """The reasons of each round of an estimate that everybody was heard in, sorted."""
        if record.opened.kind != "estimate":
            return ()
        rounds = [r.reasons for r in estimate_rounds(record.deliberation, with_open=is_over)]
        said = [[await self._json(digest) for digest in of_round] for of_round in rounds]
        return tuple(tuple(sorted(str(one["reason"]) for one in each if one is not None)) for each in said)

    async def minority(self, summary: CouncilSummary) -> Any:
        """What the losing side said, None while the council is open."""
        return await self._json(Digest(summary.minority_report) if summary.minority_report else None)

    async def _json(self, digest: Digest | None) -> Any:
        """The value of a blob without secrets, which the code of an answer may hold.

        None when there is none, retention has deleted it, or it is no JSON.
        """
        if digest is None:
            return None
        try:
            return redact_json(json.loads(await self._blobs.get(digest)))
        except (ArtifactNotFound, ValueError):
            return None

    # Work.

    async def runs(self, story_id: StoryId, *, cut: RowCut | None = None) -> list[RunLine]:
        """Every run and tool call of the story, in the order of their start. Of a cut those that it shows."""
        state = await self.planning.state(story_id)
        steps = (state if cut is None else cut.state(state)).steps.values()
        lines = [run_line(step) for step in steps if step.started.kind in _RUNS]
        return [line for line in lines if cut is None or not cut.names(line)]

    async def changes(
        self, story_id: StoryId, *, old: Digest | None, new: Digest | None, path: str | None = None
    ) -> TreeChanges:
        """What differs between two trees of the story: from its base to its present tree unless they are named."""
        state = await self.planning.state(story_id)
        a, b = old or state.base_tree, new or state.tree or state.base_tree
        if a is None or b is None:
            raise ArtifactNotFound(f"story {story_id} has no tree yet: its work has not begun", story_id=story_id)
        self._require_trees(state, a, b)
        return await tree_changes(self._blobs, a, b, path=path)

    async def files(self, story_id: StoryId, tree: Digest | None) -> tuple[Digest, list[tuple[str, str]]]:
        """The tree, and path and mode of each of its files."""
        chosen = await self._tree(story_id, tree)
        entries = await read_tree(self._blobs, chosen)
        return chosen, [(shown_name(path), entries[path].mode) for path in sorted(entries)]

    async def file(self, story_id: StoryId, tree: Digest | None, path: str) -> FileText:
        """One file of a tree of the story."""
        return await file_at(self._blobs, await self._tree(story_id, tree), path)

    async def _tree(self, story_id: StoryId, tree: Digest | None) -> Digest:
        state = await self.planning.state(story_id)
        chosen = tree or state.tree or state.base_tree
        if chosen is None:
            raise ArtifactNotFound(f"story {story_id} has no tree yet: its work has not begun", story_id=story_id)
        self._require_trees(state, chosen)
        return chosen

    def _require_trees(self, state: StoryState, *trees: Digest) -> None:
        of_story = known_trees(state)
        for tree in trees:
            if tree not in of_story:
                raise ArtifactNotFound(f"story {state.story_id} names no tree {tree}", digest=tree)

    async def named(self, story_id: StoryId, digest: Digest, *, cut: RowCut | None = None) -> bytes:
        """Return the bytes of a blob that an event of the story names (AP-89). The files of its trees count too.

        Of a cut the blobs of events are what runs, calls and measurements of shown tasks left: a prompt or an answer
        may tell of all of the story. Raises ArtifactNotFound for any other: that it is another story's is not told.
        """
        needle = str(digest).encode()
        events = await self.history(story_id, cut=cut)
        shown = events if cut is None else _of_tasks(events, await self.planning.state(story_id), cut)
        if any(needle in event.body for event, _ in shown) or await self._is_file(story_id, digest):
            raw = await self._blobs.get(digest)
            if cut is None or not cut.names(raw.decode(errors="replace")):
                return raw
        raise ArtifactNotFound(f"story {story_id} names no blob {digest}", digest=digest)

    async def _is_file(self, story_id: StoryId, digest: Digest) -> bool:
        """Whether a tree of the story has a file of these bytes; a tree that retention has deleted has none."""
        for tree in known_trees(await self.planning.state(story_id)):
            with suppress(ArtifactNotFound):
                if any(entry.blob == digest for entry in (await read_tree(self._blobs, tree)).values()):
                    return True
        return False

    # Context and graph.

    async def graph(
        self, story_id: StoryId, *, depth: int = 2, max_nodes: int = MAX_NODES, cut: RowCut | None = None
    ) -> StoryGraph:
        """What lies around the story, at most `depth` relationships away (AP-70); of a cut without what it hides."""
        events = await self.history(story_id)
        if cut is None:
            return story_graph(events, story_id=story_id, depth=depth, max_nodes=max_nodes)
        taken = [(event, payload) for event, payload in events if cut.takes(event)]
        ids = nodes_of(taken) | cut.rows.shown
        return story_graph(
            events,
            story_id=story_id,
            depth=depth,
            max_nodes=max_nodes,
            shows=lambda id, props: id == story_id or (id in ids and not cut.names([id, props])),
        )

    async def pack(
        self,
        story_id: StoryId,
        role: str,
        phase: str,
        *,
        task_id: EntityId | None = None,
        as_of: int = 0,
        token_budget: int | None = None,
        shown: frozenset[str] | None = None,
        around: Sequence[str] = (),
    ) -> Pack:
        """The pack of one role in one phase, of the latest version unless one is named (AP-68).

        Args:
            around: what the role is told around it; see `WholePacks`.
        """
        as_of = as_of or (await self.planning.state(story_id)).version
        request = PackRequest(story_id, role, phase, as_of, task_id, token_budget, shown)
        return await self._packs.pack(request, await self._packs.beside(story_id, role, around, as_of=as_of))

    def cells(self) -> list[tuple[str, str]]:
        """(role, phase) of every cell of the scope matrix, profiles too."""
        cells = [(role, phase) for phase, rows in self.context.matrix.items() for role in rows]
        cells += [(name, phase) for name in self.context.profiles for phase in self.context.matrix]
        return sorted(cells)

    async def packs(
        self,
        story_id: StoryId,
        *,
        shown: frozenset[str] | None = None,
        around: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> list[PackView]:
        """The packs of every role in every phase: what each sees, and how many tokens it takes (AP-99).

        Args:
            around: of each role, as for `pack`.
        """
        version = (await self.planning.state(story_id)).version
        beside = {
            role: await self._packs.beside(story_id, role, texts, as_of=version) for role, texts in around.items()
        }
        requests = [PackRequest(story_id, role, phase, version, shown=shown) for role, phase in self.cells()]
        return [await self._pack_view(one, beside.get(one.role, 0)) for one in requests]

    async def _pack_view(self, request: PackRequest, beside: int) -> PackView:
        role, phase = request.role, request.phase
        try:
            return PackView(role, phase, await self._packs.pack(request, beside))
        except (PolicyDenied, ContextTooLarge, InvalidInput) as error:
            return PackView(role, phase, None, error.message)


def _of_tasks(
    history: list[tuple[StoredEvent, Payload]], state: StoryState, cut: RowCut
) -> list[tuple[StoredEvent, Payload]]:
    """Measurements of shown tasks, and ends of runs and calls for them."""

    def is_shown(payload: Payload) -> bool:
        if isinstance(payload, WorkspaceReported):
            return payload.task_id in cut.rows.shown
        step = state.steps.get(payload.step_id) if isinstance(payload, StepFinished) else None
        return step is not None and step.started.kind in _RUNS and step.started.task_id in cut.rows.shown

    return [(event, payload) for event, payload in history if is_shown(payload)]


def _row(event: StoredEvent, payload: Payload) -> TimelineRow:
    return TimelineRow(
        version=event.version,
        ts_ms=event.ts_ms,
        event=event.type,
        actor=event.actor,
        human=event.actor.is_human,
        text=describe(payload),
    )


def _chosen(record: CouncilRecord) -> Digest | None:
    """The content that won; None without a winner, and where a history names one that it does not hold."""
    versions = {version.candidate_id: version.digest for version in record.deliberation.versions()}
    return versions.get(record.winner or "")
