"""Wire types of who said what in a story: timeline, councils, context packs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fleet.desk.context.pack_blocks import PackBlocks
from fleet.desk.story_pages import CouncilView, PackView
from fleet.redaction.redact_counts import redacted_kinds
from fleet.report.councils import CouncilSummary
from fleet.report.model import TimelineRow
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at

# Timeline and councils.


class TimelineView(Wire):
    """One event in words."""

    version: int
    at: str
    event: str
    actor: str
    human: bool
    text: str


class TimelineList(Wire):
    """Events in words, in order; `next_after` is the version to go on from."""

    items: tuple[TimelineView, ...]
    next_after: int | None


def timeline_list(rows: list[TimelineRow], *, limit: int) -> TimelineList:
    """A page of a timeline."""
    return TimelineList(
        items=tuple(_timeline(row) for row in rows), next_after=rows[-1].version if len(rows) == limit else None
    )


def _timeline(row: TimelineRow) -> TimelineView:
    return TimelineView(
        version=row.version, at=at(row.ts_ms), event=row.event, actor=row.actor, human=row.human, text=row.text
    )


class CouncilList(Wire):
    """The councils of a story in the order of opening."""

    items: tuple[CouncilSummary, ...]


class CouncilPage(Wire):
    """One council with what happened in it, and its minority report."""

    council: CouncilSummary
    timeline: tuple[TimelineView, ...]
    minority_report: Any
    asked: Any
    """The request of a council on request; null of the story's own."""
    answer: Any
    """What the winner wrote; null without one."""
    record: Any
    """The whole record of the outcome, with tally, evidence and ballots; null while it is open (CN-58)."""
    reasons: tuple[tuple[str, ...], ...]
    """Of an estimate: what members said in each of its rounds, without names and values (CN-70)."""


def council_page(view: CouncilView) -> CouncilPage:
    """The wire form of a council."""
    return CouncilPage(
        council=view.summary,
        timeline=tuple(_timeline(row) for row in view.timeline),
        minority_report=view.minority,
        asked=view.asked,
        answer=view.answer,
        record=view.record,
        reasons=view.reasons,
    )


# Context.


class DroppedView(Wire):
    """How much of a scope did not fit."""

    scope: str
    items: int
    ids: tuple[str, ...]


class BlocksView(Wire):
    """What the role is told, apart by where it comes from."""

    system: str
    """Of configuration alone: the role's prompt and the language."""
    context: str
    """The pack: what `text` and `hash` are about, and what models are sent of the story."""
    tools: str
    """Operations that the role may call, one tool a line."""


class PackPage(Wire):
    """What one role sees of the story in one phase; `refused` says why it sees nothing."""

    story_id: str
    role: str
    phase: str
    scopes: tuple[str, ...]
    token_count: int
    """Of all blocks together."""
    budget: int
    """The ceiling of all blocks together."""
    counter: str | None
    """What counted the tokens: `estimate`, or name and digest of the tokenizer of the model that reads the pack."""
    hash: str | None
    as_of: int
    dropped: tuple[DroppedView, ...]
    text: str | None
    """Left out in lists."""
    version: int
    """Of the story, the same as `as_of`."""
    redactions: dict[str, int]
    """Places of the text from which a secret was taken out, by class; empty in lists."""
    blocks: BlocksView | None
    """Left out in lists, and where this front has no configuration in force."""
    refused: str | None


class PackList(Wire):
    """The packs of every role and phase, without their text."""

    story_id: str
    items: tuple[PackPage, ...]


def pack_page(story_id: str, view: PackView, *, with_text: bool, blocks: PackBlocks | None = None) -> PackPage:
    """The wire form of a pack."""
    pack = view.pack
    text = pack.text if pack and with_text else None
    return PackPage(
        story_id=story_id,
        role=view.role,
        phase=view.phase,
        scopes=pack.scopes if pack else (),
        token_count=pack.token_count if pack else 0,
        budget=pack.budget if pack else 0,
        counter=pack.counter if pack else None,
        hash=pack.hash if pack else None,
        as_of=pack.as_of if pack else 0,
        dropped=tuple(DroppedView(scope=s, items=len(ids), ids=ids) for s, ids in pack.left_out) if pack else (),
        text=text,
        version=pack.as_of if pack else 0,
        redactions=dict(sorted(redacted_kinds((text or "").encode()).items())),
        blocks=BlocksView(**asdict(blocks)) if blocks else None,
        refused=view.refused,
    )
