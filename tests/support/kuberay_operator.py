"""What KubeRay's operator refuses beyond its definitions (v1.7, its `validation.go`, told again as pure functions)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Manifest = dict[str, Any]
_LONGEST = {"RayCluster": 53, "RayService": 47, "RayJob": 47}
_GATED = ("networkPolicy", "tlsOptions", "historyServerOptions")
"""Behind feature gates that are off by default."""
_OF_REDIS = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD")


def operator_problems(manifest: Manifest) -> list[str]:
    """Every reason for which the operator would not reconcile the object."""
    kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest["spec"]
    found = [] if re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) else [f"name {name!r} is no DNS-1035 label"]
    if len(name) > _LONGEST[kind]:
        found.append(f"name {name!r} is over {_LONGEST[kind]} characters")
    if kind == "RayJob":
        found += _job(spec)
    cluster = {"RayCluster": spec, "RayService": spec.get("rayClusterConfig"), "RayJob": spec.get("rayClusterSpec")}[
        kind
    ]
    return [*found, *(_cluster(cluster, manifest["metadata"].get("annotations", {}), kind) if cluster else ())]


def _cluster(spec: Manifest, annotations: Manifest, kind: str) -> Iterator[str]:
    head, workers = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    yield from _groups(head, workers)
    yield from _scaling(spec, [head, *workers])
    yield from _fault_tolerance(spec, annotations, [head, *workers])
    yield from (f"{name} needs a feature gate" for name in _GATED if name in spec)
    auth = spec.get("authOptions", {})
    version = tuple(int(part) for part in spec.get("rayVersion", "0").split("."))
    if auth.get("mode") == "token" and version < (2, 52, 0):
        yield "token authentication needs rayVersion 2.52.0 or newer, and it has to be set"
    if auth.get("enableK8sTokenAuth") and (auth.get("secretName") or kind != "RayCluster" or version < (2, 55, 0)):
        yield "enableK8sTokenAuth needs 2.55 and a RayCluster, and excludes secretName"


def _groups(head: Manifest, workers: list[Manifest]) -> Iterator[str]:
    names = [group["groupName"] for group in workers]
    if len(set(names)) != len(names):
        yield "a group stands twice"
    for group in [head, *workers]:
        name, parameters = group.get("groupName", "head"), group.get("rayStartParams", {})
        if not group["template"]["spec"].get("containers"):
            yield f"{name} has no container"
        if "labels" in parameters:
            yield f"{name} has labels in rayStartParams"
        both = {"num-cpus": "cpu", "num-gpus": "nvidia.com/gpu", "memory": "memory"}
        yield from (
            f"{name} has {parameter} in rayStartParams and in resources"
            for parameter, resource in both.items()
            if parameter in parameters and {resource, resource.upper()} & group.get("resources", {}).keys()
        )
    for group in workers:
        if not 0 <= group.get("minReplicas", 0) <= group.get("maxReplicas", 1 << 31):
            yield f"{group['groupName']} has minReplicas over maxReplicas"


def _scaling(spec: Manifest, groups: list[Manifest]) -> Iterator[str]:
    if not spec.get("enableInTreeAutoscaling"):
        if any("idleTimeoutSeconds" in group for group in groups):
            yield "idleTimeoutSeconds of a group needs the autoscaler"
        return
    if spec.get("autoscalerOptions", {}).get("version") == "v2" and any(
        group["template"]["spec"].get("restartPolicy", "Never") != "Never" for group in groups
    ):
        yield "autoscaler v2 needs restartPolicy Never"
    if any(group.get("suspend") for group in groups):
        yield "a suspended group excludes the autoscaler"


def _fault_tolerance(spec: Manifest, annotations: Manifest, groups: list[Manifest]) -> Iterator[str]:
    options = spec.get("gcsFaultToleranceOptions")
    if options and "ray.io/ft-enabled" in annotations:
        yield "gcsFaultToleranceOptions excludes the annotation ray.io/ft-enabled"
    if options and options.get("backend") == "rocksdb":
        yield "rocksdb needs a feature gate"
    for group in groups if options else ():
        names = {v["name"] for c in group["template"]["spec"]["containers"] for v in c.get("env", ())}
        yield from (f"{name} is set beside gcsFaultToleranceOptions" for name in _OF_REDIS if name in names)
        if {"redis-password", "redis-username"} & group.get("rayStartParams", {}).keys():
            yield "redis-password is set beside gcsFaultToleranceOptions"


def _job(spec: Manifest) -> Iterator[str]:
    if spec.get("submissionMode", "K8sJobMode") not in ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"):
        yield "submissionMode is unknown"
    if not spec.get("clusterSelector") and not spec.get("rayClusterSpec"):
        yield "neither clusterSelector nor rayClusterSpec"
    if spec.get("clusterSelector") and (spec.get("suspend") or spec.get("backoffLimit")):
        yield "clusterSelector excludes suspend and backoffLimit"
    if spec.get("clusterSelector") and spec.get("shutdownAfterJobFinishes"):
        yield "clusterSelector excludes shutdownAfterJobFinishes"
    if spec.get("deletionStrategy", {}).get("deletionRules") and spec.get("shutdownAfterJobFinishes"):
        yield "deletionRules exclude shutdownAfterJobFinishes"
    if spec.get("ttlSecondsAfterFinished") and not (
        spec.get("shutdownAfterJobFinishes") or spec.get("clusterSelector")
    ):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
