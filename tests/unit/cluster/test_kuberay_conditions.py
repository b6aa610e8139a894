"""Conditions of the operator, in words."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.kuberay.conditions import finding_of


def condition(kind: str, value: str, reason: str = "Because", message: str = "of it") -> dict[str, str]:
    """One condition."""
    return {"type": kind, "status": value, "reason": reason, "message": message}


def service(**status: Any) -> dict[str, Any]:
    """A RayService with this status."""
    return {"kind": "RayService", "metadata": {}, "status": status}


APPS = {"fleet": {"status": "RUNNING"}, "llm": {"status": "DEPLOYING"}}


@pytest.mark.parametrize(
    ("manifest", "state", "words"),
    [
        (None, "missing", "is not there; `fleet cluster apply` makes it"),
        ({"kind": "Service", "metadata": {"deletionTimestamp": "x"}}, "waiting", "is being deleted"),
        ({"kind": "Service", "metadata": {}}, "ready", "is there"),
        (service(), "waiting", "the operator has not said anything yet"),
        (service(activeServiceStatus={"applicationStatuses": APPS}, conditions=[
            condition("Ready", "False", "Starting")]),
         "waiting", "fleet RUNNING; llm DEPLOYING; Ready is False: Starting of it"),
        (service(activeServiceStatus={"applicationStatuses": APPS}, conditions=[
            condition("Ready", "True"), condition("UpgradeInProgress", "True")]),
         "ready", "fleet RUNNING; llm DEPLOYING; an upgrade is under way"),
        (service(conditions=[condition("Ready", "True")], pendingServiceStatus={"applicationStatuses": {
            "fleet": {"status": "DEPLOY_FAILED", "message": "no module"}}}),
         "failed", "fleet DEPLOY_FAILED: no module"),
        ({"kind": "RayCluster", "metadata": {}, "status": {"state": "ready", "readyWorkerReplicas": 2,
          "desiredWorkerReplicas": 2, "conditions": [condition("HeadPodReady", "True")]}}, "ready", "2 of 2 workers"),
        ({"kind": "RayCluster", "metadata": {}, "status": {"desiredWorkerReplicas": 2,
          "conditions": [condition("ReplicaFailure", "True", "FailedCreatePod", "quota")]}},
         "failed", "0 of 2 workers; ReplicaFailure is True: FailedCreatePod quota"),
        ({"kind": "RayCluster", "metadata": {}, "status": {"state": "failed", "reason": "image"}},
         "failed", "0 of 0 workers; image"),
        ({"kind": "RayCluster", "metadata": {}, "status": {"conditions": [
            {"type": "HeadPodReady", "status": "False"}, "odd"]}},
         "waiting", "0 of 0 workers; HeadPodReady is False: no reason given"),
        ({"kind": "StatefulSet", "metadata": {}, "spec": {"replicas": 1}}, "waiting", "0 of 1 pods"),
        ({"kind": "PersistentVolumeClaim", "metadata": {}}, "waiting",
         "Pending: no volume fits its class, size and access modes yet"),
        ({"kind": "PersistentVolumeClaim", "metadata": {}, "status": {"phase": "Lost"}}, "failed",
         "Lost: no volume fits its class, size and access modes yet"),
    ],
)  # fmt: skip
def test_object_is_told_in_words(manifest: dict[str, Any] | None, state: str, words: str) -> None:
    assert finding_of("it", manifest) == ("it", state, words)
