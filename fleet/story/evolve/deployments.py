"""Fold of deployments, of what was observed of them, and of incidents (LC-49)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.workspace import DeploymentRecorded, HealthObserved, IncidentClosed, IncidentOpened
from fleet.story.deployments import Deployment, Incident
from fleet.story.state import StoryState


def _recorded(s: StoryState, p: DeploymentRecorded, event: StoredEvent) -> StoryState:
    made = Deployment(
        deployment_id=p.deployment_id,
        environment=p.environment,
        tree=p.tree_digest,
        status=p.status,
        version=event.version,
        loopbacks=s.gone_back,
        revision=p.revision or "",
        monitor_s=p.monitor_s or 0,
        rollback_ref=p.rollback_ref,
        detail=p.detail or "",
    )
    if (known := s.deployments.get(p.deployment_id)) is not None:
        # The same one again: it was rolled back, and keeps what was observed of it.
        made = replace(known, status=p.status, version=event.version, detail=p.detail or known.detail)
    return s.with_(deployments={**s.deployments, p.deployment_id: made})


def _observed(s: StoryState, p: HealthObserved, _: StoredEvent) -> StoryState:
    known = s.deployments.get(p.deployment_id or "")
    if known is None:
        return s
    seen = known.seen(ok=p.ok, from_ms=p.from_, to_ms=p.to)
    return s.with_(deployments={**s.deployments, known.deployment_id: seen})


def _opened(s: StoryState, p: IncidentOpened, _: StoredEvent) -> StoryState:
    incident = Incident(
        incident_id=p.incident_id,
        summary=p.summary,
        loopbacks=s.gone_back,
        deployment_id=p.deployment_id,
        task_id=p.task_id,
    )
    return s.with_(incidents={**s.incidents, p.incident_id: incident})


def _closed(s: StoryState, p: IncidentClosed, _: StoredEvent) -> StoryState:
    known = s.incidents.get(p.incident_id)
    return s.with_(incidents={**s.incidents, p.incident_id: replace(known, is_closed=True)}) if known else s


HANDLERS: Mapping[type[Payload], Callable[[StoryState, Any, StoredEvent], StoryState]] = {
    DeploymentRecorded: _recorded,
    HealthObserved: _observed,
    IncidentOpened: _opened,
    IncidentClosed: _closed,
}
