"""The operator reconciles every object that is rendered; the rules that say so find what they are for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cluster_manifests import cluster_named, every_ray_object, rendered
from tests.support.kuberay_operator import operator_problems


def test_operator_reconciles_every_ray_object() -> None:
    assert [problem for manifest in every_ray_object() for problem in operator_problems(manifest)] == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["metadata", "name"], "f" * 54, "is over 53 characters"),
        (["metadata", "name"], "1fleet", "no DNS-1035 label"),
        (["metadata", "annotations"], {"ray.io/ft-enabled": "true"}, "excludes the annotation"),
        (["spec", "rayVersion"], "2.51.0", "needs rayVersion 2.52.0"),
        (["spec", "authOptions", "enableK8sTokenAuth"], True, "excludes secretName"),
        (["spec", "networkPolicy"], {}, "networkPolicy needs a feature gate"),
        (["spec", "gcsFaultToleranceOptions", "backend"], "rocksdb", "rocksdb needs a feature gate"),
        (["spec", "headGroupSpec", "rayStartParams", "labels"], "a=b", "head has labels in rayStartParams"),
        (["spec", "headGroupSpec", "rayStartParams", "redis-password"], "x", "redis-password is set"),
        (["spec", "headGroupSpec", "resources"], {"CPU": "1"}, "num-cpus in rayStartParams and in resources"),
        (["spec", "headGroupSpec", "template", "spec", "containers"], [], "head has no container"),
        (["spec", "headGroupSpec", "template", "spec", "containers", 0, "env"], [{"name": "REDIS_PASSWORD"}],
         "REDIS_PASSWORD is set beside"),
        (["spec", "workerGroupSpecs", 0, "groupName"], "sandbox", "stands twice"),
        (["spec", "workerGroupSpecs", 0, "minReplicas"], 9, "minReplicas over maxReplicas"),
        (["spec", "workerGroupSpecs", 0, "suspend"], True, "excludes the autoscaler"),
        (["spec", "workerGroupSpecs", 0, "template", "spec", "restartPolicy"], "Always", "needs restartPolicy Never"),
        (["spec", "enableInTreeAutoscaling"], False, "needs the autoscaler"),
    ],
)  # fmt: skip
def test_operator_refuses_a_cluster_by_name(path: list[str | int], value: Any, expected: str) -> None:
    (manifest,) = [m for m in rendered(cluster_named("gpu", kind="cluster")) if m["kind"] == "RayCluster"]
    place: Any = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    problems = operator_problems(manifest)

    assert problems
    assert any(expected in problem for problem in problems)
