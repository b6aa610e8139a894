"""The manifests of a run on Kubernetes: one Job per run, and the policy that denies its pods all network.

Pure: a specification in, documents out. The tree goes in as Secrets, which are mounted
read-only as one projected volume, because that needs neither network from the pod nor a protocol beside HTTPS.

Source: docs/design/sandbox.md, section 10.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.adapters.sandbox.limits import RAM_FOLDERS
from fleet.errors import InvalidInput
from fleet.tools import Limits

__all__ = ["KubernetesPlace", "PART_LABEL", "RUN_LABEL", "STATE_LABEL", "deny_all_policy", "job_manifest", "labels_of"]

STATE_LABEL, RUN_LABEL, PART_LABEL = "swefleet.io/state", "swefleet.io/run", "swefleet.io/part"
_PART = "run"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,200}@sha256:[0-9a-f]{64}")
_USER = 1000
_DEADLINE_SLACK_S = 60
_KEPT_S = 300
_LAST_WORDS_S = 5
"""After its command's grace a pod may still say how it ended."""


@dataclass(frozen=True, slots=True)
class KubernetesPlace:
    """Where and how runs are placed.

    Args:
        image: by digest, so that a run can be repeated; it holds Python and prlimit.
        runtime_class: e.g. `gvisor`; None is that of the cluster.
        seccomp_profile: path of a profile on the nodes (`Localhost`); None is `RuntimeDefault`.
        node_labels: nodes that runs may be placed on.
    """

    namespace: str
    image: str
    runtime_class: str | None = None
    seccomp_profile: str | None = None
    node_labels: dict[str, str] = field(default_factory=dict[str, str])
    has_user_namespaces: bool = False


def labels_of(state: str, run: str) -> dict[str, str]:
    """Labels of everything that belongs to one run; the sweep and the network policy find it by them."""
    return {PART_LABEL: _PART, STATE_LABEL: state, RUN_LABEL: run}


def job_manifest(
    place: KubernetesPlace, *, name: str, labels: dict[str, str], command: Sequence[str], inputs: Sequence[str],
    limits: Limits, programs: str | None = None, annotations: dict[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A Job that runs the command once, as nobody, without network, token or rights.

    Args:
        name: of the Job and its container; a DNS label.
        inputs: names of the Secrets that are mounted together at /fleet/request.
        programs: name of the Secret that is mounted at /fleet/inside; None where the image has these files.
        annotations: of the Job.

    Raises:
        InvalidInput: a name is no DNS label, the image has no digest, or there is no command.
    """
    _check(place, name, labels, command)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": place.namespace, "labels": labels}
        | ({"annotations": dict(annotations)} if annotations else {}),
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": limits.overall_s + limits.grace_s + _DEADLINE_SLACK_S,
            "ttlSecondsAfterFinished": _KEPT_S,
            "template": {"metadata": {"labels": labels}, "spec": _pod(place, name, command, inputs, programs, limits)},
        },
    }


def deny_all_policy(namespace: str, *, name: str = "swe-fleet-runs") -> dict[str, Any]:
    """No traffic into or out of any pod of a run. It holds only where the cluster's network plugin enforces it."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {PART_LABEL: _PART}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [],
        },
    }


def _check(place: KubernetesPlace, name: str, labels: dict[str, str], command: Sequence[str]) -> None:
    problems = [f"{what} {text!r} is no DNS label" for what, text in (("name", name), ("namespace", place.namespace))
                if not _NAME.fullmatch(text)]  # fmt: skip
    if not _IMAGE.fullmatch(place.image):
        problems.append(f"image {place.image!r} is not named by digest (name@sha256:...)")
    problems += [f"label {key}={value!r} is no label value" for key, value in labels.items()
                 if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value)]  # fmt: skip
    if labels.get(PART_LABEL) != _PART:
        problems.append(f"label {PART_LABEL} is missing: the network policy would not apply")
    if not command:
        problems.append("there is no command")
    if problems:
        raise InvalidInput(f"manifest of the run: {'; '.join(problems)}", field="job", problems=problems)


def _pod(
    place: KubernetesPlace,
    name: str,
    command: Sequence[str],
    inputs: Sequence[str],
    programs: str | None,
    limits: Limits,
) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": limits.grace_s + _LAST_WORDS_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": _pod_security(place),
        "containers": [_container(place, name, command, limits, has_programs=programs is not None)],
        "volumes": _volumes(inputs, programs, limits),
    }
    if place.runtime_class:
        pod["runtimeClassName"] = place.runtime_class
    if place.node_labels:
        pod["nodeSelector"] = dict(place.node_labels)
    if place.has_user_namespaces:
        pod["hostUsers"] = False
    return pod


def _pod_security(place: KubernetesPlace) -> dict[str, Any]:
    profile: dict[str, str] = {"type": "RuntimeDefault"}
    if place.seccomp_profile:
        profile = {"type": "Localhost", "localhostProfile": place.seccomp_profile}
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "supplementalGroups": [],
        "seccompProfile": profile,
    }


def _container(
    place: KubernetesPlace, name: str, command: Sequence[str], limits: Limits, *, has_programs: bool
) -> dict[str, Any]:
    # Requests equal limits: the pod is of class Guaranteed, and what it may use is there when it starts.
    amounts = {
        "cpu": f"{limits.cpu_millis}m",
        "memory": str(limits.memory_bytes),
        "ephemeral-storage": str(limits.disk_bytes + RAM_FOLDERS["/tmp"]),
    }
    return {
        "name": name,
        "image": place.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "workingDir": "/workspace",
        "stdin": False,
        "tty": False,
        "terminationMessagePolicy": "File",
        "resources": {"limits": amounts, "requests": dict(amounts)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "workspace", "mountPath": "/workspace"},
            {"name": "inputs", "mountPath": "/inputs"},
            {"name": "repo", "mountPath": "/repo.git"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "home", "mountPath": "/home/agent"},
            {"name": "run", "mountPath": "/run"},
            {"name": "request", "mountPath": "/fleet/request", "readOnly": True},
            *([{"name": "inside", "mountPath": "/fleet/inside", "readOnly": True}] if has_programs else []),
        ],
    }


def _volumes(inputs: Sequence[str], programs: str | None, limits: Limits) -> list[dict[str, Any]]:
    ram = {"tmp": RAM_FOLDERS["/tmp"], "home": RAM_FOLDERS["/home/agent"], "run": RAM_FOLDERS["/run"]}
    sources = [{"secret": {"name": secret}} for secret in inputs]
    return [
        {"name": "workspace", "emptyDir": {"sizeLimit": str(limits.disk_bytes)}},
        {"name": "inputs", "emptyDir": {"sizeLimit": str(limits.disk_bytes)}},
        {"name": "repo", "emptyDir": {"sizeLimit": str(limits.disk_bytes)}},
        *({"name": n, "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}} for n, size in ram.items()),
        {"name": "request", "projected": {"sources": sources, "defaultMode": 0o440}},
        *([{"name": "inside", "secret": {"secretName": programs, "defaultMode": 0o444}}] if programs else []),
    ]
