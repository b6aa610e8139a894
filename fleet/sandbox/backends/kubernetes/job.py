"""The manifests of a run on Kubernetes: one Job per run, and the policy that denies its pods all network.

Pure: a specification in, documents out. The tree goes in as Secrets, which are mounted
read-only as one projected volume, because that needs neither network from the pod nor a protocol beside HTTPS.

Source: docs/design/sandbox.md, section 10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.spec import Limits, RunReason
from fleet.sandbox.backends.bubblewrap.limits import RAM_FOLDERS

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


_NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_NO_START = frozenset({"CreateContainerError", "RunContainerError", "CrashLoopBackOff"})
_DISK_WORDS = ("ephemeral", "emptydir", "exceeds the limit")


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. `stage`: `waiting` goes on by itself, `stuck` does not, `running` has a log, `ended` has no process."""

    name: str
    stage: Literal["waiting", "stuck", "no_image", "running", "ended"]
    why: str = ""
    """What the cluster says, for people."""
    is_unschedulable: bool = False
    has_run: bool = False
    """Its container was started at least once, so it may have a log."""
    ended_as: str = ""
    """Reason of the container's end: `OOMKilled`, `Error`, `Completed`, ..."""
    removed_as: str = ""
    """Reason of the pod's own end: `Evicted`, `DeadlineExceeded`, `Preempting`, ..."""
    exit_code: int | None = None


def pod_of(document: Mapping[str, Any]) -> Pod:
    """The pod as its object in the API says it; whatever is missing counts as not yet there."""
    status = _mapping(document.get("status"))
    name = str(_mapping(document.get("metadata")).get("name", ""))
    container = _mapping(next(iter(_list(status.get("containerStatuses"))), None))
    state = _mapping(container.get("state"))
    ended, waiting = _mapping(state.get("terminated")), _mapping(state.get("waiting"))
    phase = status.get("phase")
    code = ended.get("exitCode")
    if ended or phase in ("Failed", "Succeeded"):
        return Pod(
            name,
            "ended",
            why=_words(status, ended),
            has_run=bool(ended),
            ended_as=str(ended.get("reason", "")),
            removed_as=str(status.get("reason", "")),
            exit_code=code if isinstance(code, int) else None,
        )
    if "running" in state:
        return Pod(name, "running", has_run=True)
    held = str(waiting.get("reason", ""))
    if held in _NO_IMAGE:
        return Pod(name, "no_image", why=_words(waiting))
    if held in _NO_START:
        return Pod(name, "stuck", why=_words(waiting))
    refused = _unschedulable(status)
    return Pod(name, "waiting", why=refused or _words(waiting), is_unschedulable=bool(refused))


def reason_of(pod: Pod | None) -> RunReason:
    """The reason of a run whose shim could not say it: the kernel or the cluster ended it."""
    if pod is None:
        return "sandbox_lost"
    if pod.ended_as == "OOMKilled":
        return "oom_killed"
    if pod.removed_as == "DeadlineExceeded":
        return "timeout"
    if pod.removed_as == "Evicted" and any(word in pod.why.lower() for word in _DISK_WORDS):
        return "disk_limit"
    return "sandbox_lost"


def _unschedulable(status: Mapping[str, Any]) -> str:
    for condition in map(_mapping, _list(status.get("conditions"))):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return f"Unschedulable: {str(condition.get('message', ''))[:300]}"
    return ""


def _words(*states: Mapping[str, Any]) -> str:
    said = [str(one[key]) for one in states for key in ("reason", "message") if one.get(key)]
    return ": ".join(dict.fromkeys(said))[:500]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
