"""What a notification target is told of an event, and what it is not told. Pure (LC-80, LC-131)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import JsonValue

from fleet.context import redact
from fleet.events import ApprovalRequested, IncidentOpened, Payload, SlaBreached, StoredEvent, rfc3339
from fleet.ports import NoticeKind, Notification
from fleet.story import StoryState, pending_approvals

__all__ = ["NOTICE_TYPES", "Wanted", "delivery_id", "notification_of"]

NOTICE_TYPES: Mapping[str, NoticeKind] = {
    "ApprovalRequested": "approval_requested",
    "SlaBreached": "time_limit_passed",
    "IncidentOpened": "incident_opened",
}
"""Type of an event -> the kind of notification that it gives."""
_FORM = 1
"""Of the body; grows when a field goes away or means something else."""
_MAX_CHARS = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one target hears of; no project named is every project."""

    kinds: frozenset[NoticeKind]
    projects: frozenset[str] = frozenset()

    def types(self) -> frozenset[str]:
        """The types of events that may concern it."""
        return frozenset(name for name, kind in NOTICE_TYPES.items() if kind in self.kinds)

    def takes(self, project_id: str) -> bool:
        """Whether it hears of this project."""
        return not self.projects or project_id in self.projects


def delivery_id(target: str, stream: str, version: int) -> str:
    """`nt-<32 hex>`: one target is told of one event under one id, however often and by whichever process."""
    raw = "\x00".join((target, stream, str(version))).encode()
    return f"nt-{hashlib.sha256(raw).hexdigest()[:32]}"


def notification_of(
    target: str, wanted: Wanted, stored: StoredEvent, payload: Payload, state: StoryState
) -> Notification | None:
    """What the target is told, with the story as it is now; None when it is not to be told.

    An approval that was decided, that expired or that became void meanwhile is told to nobody: what is announced is
    what waits. Of time limits and incidents everybody hears, however late.
    """
    if not wanted.takes(state.project_id):
        return None
    match payload:
        case ApprovalRequested():
            if payload.approval_id not in {a.request.approval_id for a in pending_approvals(state)}:
                return None
            facts, link = _approval(payload, state)
        case SlaBreached():
            facts, link = _breach(payload, state)
        case IncidentOpened():
            facts, link = _incident(payload, state)
        case _:
            return None
    kind, name = NOTICE_TYPES[stored.type], delivery_id(target, stored.stream, stored.version)
    about: dict[str, JsonValue] = {
        "form": _FORM,
        "delivery_id": name,
        "kind": kind,
        "at": rfc3339(stored.ts_ms),
        "project_id": state.project_id,
        "story_id": state.story_id,
        "story_title": _shown(state.content.title),
        "story_version": stored.version,
    }
    return Notification(name, kind, {**about, **facts, "link": link})


def _approval(asked: ApprovalRequested, state: StoryState) -> tuple[dict[str, JsonValue], str]:
    facts: dict[str, JsonValue] = {
        "approval_id": asked.approval_id,
        "gate": asked.gate,
        "role": asked.role,
        "decided_by": asked.actor,
        "risk": asked.risk,
        "subject": {"kind": asked.subject.kind, "id": asked.subject.id, "digest": str(asked.subject.digest)},
        "expires_at": rfc3339(asked.expires_at),
        "attempt": asked.attempt,
    }
    link = f"#/gates/{quote(state.story_id, safe='')}/{quote(asked.approval_id, safe='')}"
    return {**facts, **_task(asked.subject.id, state)}, link


def _breach(breach: SlaBreached, state: StoryState) -> tuple[dict[str, JsonValue], str]:
    facts: dict[str, JsonValue] = {
        "state": breach.state,
        "limit_s": breach.limit_s,
        "elapsed_s": breach.elapsed_s,
        "can_take_it": list(map(str, breach.notified)),
    }
    return {**_task(breach.subject.id, state), **facts}, _story_link(state)


def _incident(opened: IncidentOpened, state: StoryState) -> tuple[dict[str, JsonValue], str]:
    facts: dict[str, JsonValue] = {
        "incident_id": opened.incident_id,
        "severity": opened.severity,
        "summary": _shown(opened.summary),
        "source": _shown(opened.source),
        "deployment_id": opened.deployment_id,
    }
    return {**facts, **_task(opened.task_id or "", state)}, _story_link(state)


def _task(task_id: str, state: StoryState) -> dict[str, JsonValue]:
    found = state.tasks.get(task_id)
    return {} if found is None else {"task_id": task_id, "task_title": _shown(found.task.title)}


def _story_link(state: StoryState) -> str:
    return f"#/story/{quote(state.story_id, safe='')}/overview"


def _shown(text: str) -> str:
    plain = redact(text).text
    return plain if len(plain) <= _MAX_CHARS else plain[: _MAX_CHARS - 1] + "…"
