"""The row of a story: what it is at its end, and the sums of what it used (MB-30)."""

from __future__ import annotations

from typing import Any, cast

from fleet.events.budget import UsageAdjusted
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepStarted
from fleet.events.story import (
    RigorChanged,
    StoryCancelled,
    StoryClosed,
    StoryCreated,
    StoryEdited,
    StoryParked,
    StoryStarted,
    StoryTransitioned,
    StoryUnparked,
)
from fleet.events.task import TreeMerged
from fleet.events.workspace import WorkspaceScored
from fleet.policy.runs.toolchains import toolchain_of_runs
from fleet.report.service.trajectories.rows import Criterion, StoryRow
from fleet.report.service.trajectories.steps import calls_of

_QUANTITIES = (
    "steps",
    "calls",
    "tokens_in",
    "tokens_out",
    "tokens_cached",
    "tokens_unpriced",
    "gpu_ms",
    "latency_ms",
    "cost_microusd",
)


class StorySums:
    """Takes the events of one story in order."""

    def __init__(self, story_id: str) -> None:
        self._story_id = story_id
        self._known: dict[str, Any] = {"outcome": "open"}
        self._used: dict[str, int] = {name: 0 for name in _QUANTITIES}
        self._started: dict[str, StepStarted] = {}
        self._done: set[str] = set()
        self._packages: str | None = None
        self._has_base = False

    def take(self, event: StoredEvent, payload: Payload) -> None:
        """The event counts."""
        self._known |= {"events": event.version, "last_hash": event.hash}
        match payload:
            case StepStarted():
                self._started.setdefault(payload.step_id, payload)
            case StepFinished() if payload.step_id in self._started and payload.step_id not in self._done:
                self._done.add(payload.step_id)
                self._finished(self._started[payload.step_id], payload)
            case UsageAdjusted() if payload.step_id in self._started:
                self._adjusted(payload)
            case TreeMerged() if not self._has_base:
                self._has_base, self._packages = True, payload.toolchain
            case _:
                self._known |= _facts(event, payload)

    def row(self, *, missing_blobs: int) -> StoryRow | None:
        """The story; None for a stream that does not begin with one."""
        if "title" not in self._known:
            return None
        nothing = dict.fromkeys(("model", "toolchain", "ended_ms", "state", "parked_for", "score", "verdict"), None)
        facts: dict[str, Any] = {**nothing, **self._known, **self._used}
        if facts["toolchain"] is not None:
            facts["toolchain"] = toolchain_of_runs(facts["toolchain"], self._packages)
        return StoryRow(story_id=self._story_id, missing_blobs=missing_blobs, **facts)

    def _finished(self, started: StepStarted, done: StepFinished) -> None:
        cost = done.cost
        self._add(
            steps=1,
            calls=calls_of(started, cost),
            tokens_in=cost.tokens_in,
            tokens_out=cost.tokens_out,
            tokens_cached=cost.tokens_cached,
            tokens_unpriced=0 if cost.priced else cost.tokens_in + cost.tokens_out,
            gpu_ms=cost.gpu_ms,
            latency_ms=cost.latency_ms,
            cost_microusd=(cost.cost_microusd or 0) if cost.priced else 0,
        )

    def _adjusted(self, adjusted: UsageAdjusted) -> None:
        delta = adjusted.delta
        tokens, tokens_out = delta.get("tokens", 0), delta.get("output_tokens", 0)
        self._add(
            calls=delta.get("calls", 0),
            tokens_in=tokens - tokens_out,
            tokens_out=tokens_out,
            tokens_unpriced=0 if "cost_microusd" in delta else tokens,
            gpu_ms=delta.get("gpu_ms", 0),
            cost_microusd=delta.get("cost_microusd", 0),
        )

    def _add(self, **used: int) -> None:
        for name, amount in used.items():
            self._used[name] += amount


def _facts(event: StoredEvent, payload: Payload) -> dict[str, Any]:
    """What the event says of the story as a whole."""
    match payload:
        case StoryCreated():
            names = ("project_id", "title", "description", "tags", "rigor", "lifecycle", "language")
            criteria = tuple(Criterion(c.ac_id, c.text) for c in payload.acceptance_criteria)
            fields = {name: getattr(payload, name) for name in names}
            return {**fields, "acceptance_criteria": criteria, "created_ms": event.ts_ms}
        case StoryEdited():
            return _edited(payload.changes)
        case StoryStarted():
            return {"model": payload.model, "toolchain": payload.toolchain}
        case StoryTransitioned():
            return {"state": payload.to}
        case RigorChanged():
            return {"rigor": payload.to}
        case WorkspaceScored():
            return {"score": payload.score, "verdict": payload.verdict}
        case StoryParked():
            return {"outcome": "parked", "parked_for": payload.cause}
        case StoryUnparked():
            return {"outcome": "open", "parked_for": None}
        case StoryClosed():
            ended = {"outcome": "delivered", "ended_ms": event.ts_ms}
            return {**ended, "parked_for": None, "state": payload.final_state}
        case StoryCancelled():
            return {"outcome": "cancelled", "ended_ms": event.ts_ms, "parked_for": None}
        case _:
            return {}


def _edited(changes: dict[str, Any]) -> dict[str, Any]:
    fields = {name: changes[name] for name in ("title", "description", "language") if name in changes}
    if "tags" in changes:
        fields["tags"] = tuple(changes["tags"])
    if "acceptance_criteria" in changes:
        listed = cast("list[dict[str, str]]", changes["acceptance_criteria"])
        fields["acceptance_criteria"] = tuple(Criterion(c["ac_id"], c["text"]) for c in listed)
    return fields
