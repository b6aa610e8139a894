"""What the objects of a cluster say of themselves, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from cluster.kuberay.identity import Manifest

State = Literal["ready", "waiting", "failed", "missing"]
_FAILED_APPS = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})


class Finding(NamedTuple):
    """One object: how it is, and why."""

    object: str
    state: State
    words: str


def finding_of(name: str, manifest: Manifest | None) -> Finding:
    """How an object is; one without a status of its own is ready when it is there."""
    if manifest is None:
        return Finding(name, "missing", "is not there; `fleet cluster apply` makes it")
    if manifest.get("metadata", {}).get("deletionTimestamp"):
        return Finding(name, "waiting", "is being deleted")
    status = manifest.get("status") or {}
    match manifest["kind"]:
        case "RayService":
            return Finding(name, *_service(status))
        case "RayCluster":
            return Finding(name, *_cluster(status))
        case "StatefulSet":
            return Finding(name, *_stateful(manifest.get("spec", {}), status))
        case "PersistentVolumeClaim":
            phase = str(status.get("phase", "Pending"))
            words = "bound" if phase == "Bound" else f"{phase}: no volume fits its class, size and access modes yet"
            return Finding(name, _state(phase == "Bound", phase == "Lost"), words)
        case _:
            return Finding(name, "ready", "is there")


def _service(status: Mapping[str, Any]) -> tuple[State, str]:
    conditions = _conditions(status)
    active: Mapping[str, Any] = status.get("activeServiceStatus") or {}
    apps: Mapping[str, Any] = active.get("applicationStatuses") or {}
    # A second cluster that comes up has applications too, and theirs is the trouble of an upgrade.
    pending: Mapping[str, Any] = (status.get("pendingServiceStatus") or {}).get("applicationStatuses") or {}
    told = [f"{name} {app.get('status', '?')}" for name, app in sorted(apps.items())]
    broken = [
        f"{name} {app.get('status')}: {app.get('message', '')}".strip(": ")
        for name, app in sorted({**pending, **apps}.items())
        if app.get("status") in _FAILED_APPS
    ]
    upgrading = conditions.get("UpgradeInProgress", {}).get("status") == "True"
    words = [*told, *broken, *(["an upgrade is under way"] if upgrading else []), *_complaints(conditions)]
    is_ready = conditions.get("Ready", {}).get("status") == "True"
    return _state(is_ready and not broken, bool(broken)), "; ".join(words) or "the operator has not said anything yet"


def _cluster(status: Mapping[str, Any]) -> tuple[State, str]:
    conditions = _conditions(status)
    said = str(status.get("state", "")).lower()
    there, wanted = status.get("readyWorkerReplicas", 0), status.get("desiredWorkerReplicas", 0)
    words = [f"{there} of {wanted} workers", *_complaints(conditions)]
    if status.get("reason"):
        words.append(str(status["reason"]))
    is_failed = said == "failed" or conditions.get("ReplicaFailure", {}).get("status") == "True"
    return _state(said == "ready" and not is_failed, is_failed), "; ".join(words)


def _stateful(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[State, str]:
    wanted, there = int(spec.get("replicas", 1)), int(status.get("readyReplicas", 0))
    return _state(there >= wanted, False), f"{there} of {wanted} pods"


def _state(is_ready: bool, is_failed: bool) -> State:
    return "failed" if is_failed else "ready" if is_ready else "waiting"


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(c.get("type")): c for c in status.get("conditions") or () if isinstance(c, Mapping)}


# Those that are well when they are false.
_BAD = frozenset({"ReplicaFailure", "RayClusterSuspending", "RayClusterSuspended", "RollbackInProgress"})
_NEUTRAL = frozenset({"UpgradeInProgress"})


def _complaints(conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found: list[str] = []
    for kind, condition in sorted(conditions.items()):
        is_well = (condition.get("status") == "True") != (kind in _BAD)
        if not is_well and kind not in _NEUTRAL:
            reason = condition.get("reason") or "no reason given"
            found.append(f"{kind} is {condition.get('status')}: {reason} {condition.get('message', '')}".strip())
    return found
