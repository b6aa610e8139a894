"""Wire form of a story's deployments, and of what went wrong with them (LC-49)."""

from __future__ import annotations

from fleet.story.deployments import Deployment
from fleet.story.state import StoryState
from serve_apps.wire.story import Wire


class DeploymentView(Wire):
    """A tree that was sent to the story's environment, and how it has been since."""

    deployment_id: str
    environment: str
    tree: str
    status: str
    detail: str
    windows: int
    """Windows that were observed."""
    healthy_s: int
    """Seconds for which every window has been healthy, up to the last one."""
    monitor_s: int
    """Seconds after which it counts as healthy."""
    is_healthy: bool


class IncidentView(Wire):
    """Something that was seen to be wrong."""

    incident_id: str
    summary: str
    status: str
    deployment_id: str | None
    task_id: str | None
    """The task that mends it, once the story has gone back."""


class DeploymentList(Wire):
    """Deployments and incidents, the oldest first."""

    environment: str | None
    """Where the story is deployed; null for one that is not."""
    items: tuple[DeploymentView, ...]
    incidents: tuple[IncidentView, ...]


def deployment_list(state: StoryState) -> DeploymentList:
    """The deployments of the story."""
    return DeploymentList(
        environment=state.environment,
        items=tuple(_deployment(deployment) for deployment in state.deployments.values()),
        incidents=tuple(
            IncidentView(
                incident_id=incident.incident_id,
                summary=incident.summary,
                status="closed" if incident.is_closed else "open",
                deployment_id=incident.deployment_id,
                task_id=incident.task_id if incident.task_id in state.tasks else None,
            )
            for incident in state.incidents.values()
        ),
    )


def _deployment(deployment: Deployment) -> DeploymentView:
    return DeploymentView(
        deployment_id=deployment.deployment_id,
        environment=deployment.environment,
        tree=deployment.tree,
        status=deployment.status,
        detail=deployment.detail,
        windows=deployment.windows,
        healthy_s=max(0, deployment.healthy_to_ms - deployment.healthy_from_ms) // 1000,
        monitor_s=deployment.monitor_s,
        is_healthy=deployment.is_healthy,
    )
