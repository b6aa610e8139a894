"""The manifests of a run on Kubernetes, against what is written by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.spec import Limits
from fleet.sandbox.backends.kubernetes.job import KubernetesPlace, job_manifest, labels_of

PLACE = KubernetesPlace("runs", f"registry.example/fleet/toolbox@sha256:{'0' * 64}")
LIMITS = Limits(overall_s=100, grace_s=5, memory_bytes=256 << 20, cpu_millis=500, disk_bytes=64 << 20)


def manifest(place: KubernetesPlace = PLACE, **fields: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": "fleet-run-1", "labels": labels_of("state1", "rn-1"), "command": ["python3", "-IS", "/x"],
        "inputs": ["a", "b"], "limits": LIMITS,
    }  # fmt: skip
    return job_manifest(place, **{**given, **fields})


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]["containers"][0]


def test_job_runs_once_and_ends() -> None:
    job = manifest()

    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["metadata"] == {
        "name": "fleet-run-1",
        "namespace": "runs",
        "labels": {"swefleet.io/part": "run", "swefleet.io/state": "state1", "swefleet.io/run": "rn-1"},
    }
    spec = {key: value for key, value in job["spec"].items() if key != "template"}
    assert spec == {
        "backoffLimit": 0, "completions": 1, "parallelism": 1, "activeDeadlineSeconds": 165,
        "ttlSecondsAfterFinished": 300,
    }  # fmt: skip
    assert job["spec"]["template"]["metadata"]["labels"] == job["metadata"]["labels"]
    assert json.loads(json.dumps(job)) == job


@pytest.mark.rule("RC-31")
def test_pod_has_no_rights_no_token_and_no_host() -> None:
    pod = manifest()["spec"]["template"]["spec"]

    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"], pod["restartPolicy"]) == (
        False, False, "Never",
    )  # fmt: skip
    assert not any(pod[name] for name in ("hostNetwork", "hostPID", "hostIPC"))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container_of(manifest())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPath" in volume for volume in pod["volumes"])


@pytest.mark.rule("RC-30")
def test_container_gets_its_limits_and_no_more() -> None:
    resources = container_of(manifest())["resources"]

    assert resources["limits"] == {
        "cpu": "500m",
        "memory": str(256 << 20),
        "ephemeral-storage": str((64 << 20) + (256 << 20)),
    }
    assert resources["requests"] == resources["limits"]


def test_every_mount_has_its_volume_and_only_these_are_writable() -> None:
    job = manifest()
    mounts = container_of(job)["volumeMounts"]
    volumes = {v["name"]: v for v in job["spec"]["template"]["spec"]["volumes"]}

    assert {m["name"] for m in mounts} == set(volumes)
    assert [m["mountPath"] for m in mounts if m.get("readOnly")] == ["/fleet/request"]
    assert volumes["request"]["projected"]["sources"] == [{"secret": {"name": "a"}}, {"secret": {"name": "b"}}]
    assert all("sizeLimit" in v["emptyDir"] for name, v in volumes.items() if name != "request")


def test_place_may_name_runtime_profile_nodes_and_user_namespaces() -> None:
    place = replace(
        PLACE, runtime_class="gvisor", seccomp_profile="fleet.json", node_labels={"pool": "runs"},
        has_user_namespaces=True,
    )  # fmt: skip
    pod = manifest(place)["spec"]["template"]["spec"]

    assert (pod["runtimeClassName"], pod["nodeSelector"], pod["hostUsers"]) == ("gvisor", {"pool": "runs"}, False)
    assert pod["securityContext"]["seccompProfile"] == {"type": "Localhost", "localhostProfile": "fleet.json"}


@pytest.mark.parametrize(
    ("place", "fields", "said"),
    [
        (PLACE, {"name": "Not_A_Label"}, "DNS label"),
        (replace(PLACE, namespace="a.b"), {}, "DNS label"),
        (replace(PLACE, image="toolbox:latest"), {}, "not named by digest"),
        (PLACE, {"command": []}, "no command"),
        (PLACE, {"labels": labels_of("s", "no value!")}, "no label value"),
        (PLACE, {"labels": {}}, "policy would not apply"),
    ],
)
def test_manifest_that_would_not_hold_is_refused(place: KubernetesPlace, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        manifest(place, **fields)
