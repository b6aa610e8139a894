"""The objects of a deployed program in a Kubernetes cluster (LC-49): documents alone, nothing is asked.

One Deployment for each revision owns the Secrets that its pods need: the packed tree, the scripts that put it in place,
and the values of its variables. One Service for each environment leads to the revision that runs, and says in an
annotation what that is and what a rollback goes back to: both change with one write, or neither does.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.deploy.local.environments import KEPT, Kept
from fleet.deploy.port import Placed
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import RunKey
from fleet.policy.commands.deploy_kubernetes import ClusterPlace
from fleet.sandbox.backends.kubernetes.inputs import Packed, parts_of
from fleet.sandbox.folders.stage import INSIDE

Manifest = dict[str, Any]
MANAGER = "swe-fleet"
KEPT_AT = "swefleet.io/kept"
"""Annotation of the Service: what runs, and what ran before, as JSON."""
LOOK, PROGRAM = "look", "deployed-program"
LOOK_LABEL = "swefleet.io/look"
LOOK_S = 30
"""Seconds that a command may take which looks at a program."""
_PART, _ENVIRONMENT, _REVISION = "swefleet.io/part", "swefleet.io/environment", "swefleet.io/revision"
_MANAGED = "app.kubernetes.io/managed-by"
_NOTHING = "none"
"""Revision that no pod has: the Service leads nowhere."""
_GRACE_S = 10
_LOOK_KEPT_S = 120
_SCRIPTS = ("job_inputs.py", "tree_in_place.py")
_TMP = "/tmp"  # noqa: S108 - of the pod


def environment_labels(environment: str) -> dict[str, str]:
    """Of everything that belongs to an environment."""
    return {_MANAGED: MANAGER, _ENVIRONMENT: environment}


@dataclass(frozen=True, slots=True)
class Revision:
    """What one deployment is made of.

    Args:
        namespace: where it is; that of the environment now.
        packed: its tree.
        values: its variables that are secret.
    """

    placed: Placed
    namespace: str
    packed: Packed
    values: Mapping[str, str]

    @property
    def name(self) -> str:
        """Of its Deployment; the same at each attempt, so that what was lost is found again."""
        return revision_name(self.placed)

    @property
    def labels(self) -> dict[str, str]:
        """Of its pods and objects."""
        placed = self.placed
        return {
            **revision_labels(placed.target.environment, placed.key),
            "swefleet.io/story": placed.story[:63].rstrip("-"),
            "swefleet.io/tree": placed.tree.rpartition(":")[2][:40],
        }

    def deployment(self, *, replicas: int) -> Manifest:
        """The Deployment; with 0 replicas it is there to own its Secrets, and nothing runs."""
        target, place = self.placed.target, self._place
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": self.labels,
                "annotations": {"swefleet.io/key": self.placed.key, "swefleet.io/tree-digest": self.placed.tree},
            },
            "spec": {
                "replicas": replicas,
                "revisionHistoryLimit": 0,
                "progressDeadlineSeconds": place.start_s + target.ready.within_s + 60,
                "selector": {"matchLabels": revision_labels(target.environment, self.placed.key)},
                "template": {"metadata": {"labels": self.labels}, "spec": self._pod([self._program()])},
            },
        }

    def secrets(self, owner_uid: str) -> list[Manifest]:
        """The Secrets of its pods; they go with the Deployment of this uid."""
        scripts = {name: (INSIDE / name).read_bytes() for name in _SCRIPTS}
        parts = [{f"part-{n:06d}": part} for n, part in enumerate(parts_of(self.packed.data))]
        contents = zip((f"{self.name}-inside", *self._parts), (scripts, *parts), strict=True)
        secrets = [self._secret(name, data, owner_uid) for name, data in contents]
        if self.values:
            values = {name: value.encode() for name, value in self.values.items()}
            secrets.append(self._secret(self._values, values, owner_uid))
        return secrets

    @property
    def _place(self) -> ClusterPlace:
        place = self.placed.target.kubernetes
        assert place is not None, "the settings refuse a target of kind kubernetes without one"
        return place

    @property
    def _parts(self) -> list[str]:
        # The digest is part of the name: they may not be changed once they are there.
        return [f"{self.name}-{self.packed.sha256[:8]}-{n:03d}" for n in range(len(parts_of(self.packed.data)))]

    @property
    def _values(self) -> str:
        return f"{self.name}-values"

    def _secret(self, name: str, data: Mapping[str, bytes], owner_uid: str) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": self.labels,
                "ownerReferences": [_owner(self.name, owner_uid)],
            },
            "type": "Opaque",
            "data": {key: base64.b64encode(value).decode("ascii") for key, value in data.items()},
        }

    # The pod.

    def _pod(self, containers: Sequence[Manifest]) -> Manifest:
        place = self._place
        pod: Manifest = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _GRACE_S,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": place.user,
                "runAsGroup": place.user,
                "fsGroup": place.user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [self._tree_in_place()],
            "containers": list(containers),
            "volumes": self._volumes(),
        }
        if place.service_account:
            pod["serviceAccountName"] = place.service_account
        if place.image_pull_secrets:
            pod["imagePullSecrets"] = [{"name": name} for name in place.image_pull_secrets]
        if place.runtime_class:
            pod["runtimeClassName"] = place.runtime_class
        if place.node_labels:
            pod["nodeSelector"] = dict(place.node_labels)
        return pod

    def _tree_in_place(self) -> Manifest:
        script = "/fleet/inside/tree_in_place.py"
        command = ["python3", "-IS", script, "/fleet/request", "/workspace", self.packed.sha256]
        return self._limited("tree", self._place.tree_image or self._place.image, command) | {
            "volumeMounts": [
                {"name": "workspace", "mountPath": "/workspace"},
                {"name": "request", "mountPath": "/fleet/request", "readOnly": True},
                {"name": "inside", "mountPath": "/fleet/inside", "readOnly": True},
            ],
        }

    def _program(self) -> Manifest:
        target = self.placed.target
        probe = {"httpGet": {"path": target.ready.path, "port": target.port}, "periodSeconds": 2, "timeoutSeconds": 5}
        return self._container("program", target.argv, self._env()) | {
            "ports": [{"name": "http", "containerPort": target.port}],
            "readinessProbe": probe,
        }

    def _container(self, name: str, argv: Sequence[str], env: Sequence[Manifest]) -> Manifest:
        return self._limited(name, self._place.image, [_plain(argument) for argument in argv]) | {
            "workingDir": "/workspace",
            "env": list(env),
            "volumeMounts": [
                {"name": "workspace", "mountPath": "/workspace", "readOnly": True},
                {"name": "tmp", "mountPath": _TMP},
            ],
        }

    def _limited(self, name: str, image: str, command: list[str]) -> Manifest:
        target, place = self.placed.target, self._place
        amounts = {
            "cpu": f"{place.cpu_millis}m",
            "memory": f"{target.memory_mb}Mi",
            "ephemeral-storage": f"{2 * place.disk_mb}Mi",
        }
        return {
            "name": name,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "command": command,
            "resources": {"limits": amounts, "requests": dict(amounts)},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }

    def _env(self) -> list[Manifest]:
        target = self.placed.target
        plain = {"HOME": _TMP, **target.env, "PORT": str(target.port)}
        entries: list[Manifest] = [{"name": name, "value": _plain(value)} for name, value in plain.items()]
        for name in self.values:
            entries.append({"name": name, "valueFrom": {"secretKeyRef": {"name": self._values, "key": name}}})
        return entries

    def _volumes(self) -> list[Manifest]:
        size = f"{self._place.disk_mb}Mi"
        sources = [{"secret": {"name": name}} for name in self._parts]
        return [
            {"name": "workspace", "emptyDir": {"sizeLimit": size}},
            {"name": "tmp", "emptyDir": {"sizeLimit": size}},
            {"name": "request", "projected": {"sources": sources, "defaultMode": 0o440}},
            {"name": "inside", "secret": {"secretName": f"{self.name}-inside", "defaultMode": 0o444}},
        ]


def revision_name(placed: Placed) -> str:
    """Of the Deployment of what is placed."""
    return f"fleet-{placed.target.environment}-{placed.key[:12]}"


def revision_labels(environment: str, key: RunKey | None) -> dict[str, str]:
    """By which the Service, the Deployment and the fleet find the pods of a revision."""
    return {**environment_labels(environment), _PART: PROGRAM, _REVISION: key[:40] if key else _NOTHING}


def _plain(text: str) -> str:
    """Kubernetes puts variables in place of `$(NAME)`; what a target declares is meant as it stands."""
    return text.replace("$", "$$")


def look(deployment: Manifest, name: str, argv: Sequence[str], placed: Placed, *, start_s: int) -> Manifest:
    """A Job that runs a command once, beside the program and in the same place: same image, tree and variables.

    Args:
        deployment: of the program, as the cluster has it.
        start_s: how long its pod may take until the command is started.
    """
    target, owner = placed.target, deployment["metadata"]
    labels = {**environment_labels(target.environment), _PART: LOOK, LOOK_LABEL: name}
    pod: Manifest = copy.deepcopy(deployment["spec"]["template"]["spec"])
    (container,) = pod["containers"]
    there = {"name": "TARGET_URL", "value": f"http://{target.service_name}:{target.port}"}
    container |= {"command": [_plain(argument) for argument in argv], "env": [*container.get("env", []), there]}
    for part in ("readinessProbe", "ports"):
        container.pop(part, None)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": owner["namespace"],
            "labels": labels,
            "ownerReferences": [_owner(owner["name"], owner["uid"])],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": start_s + LOOK_S,
            "ttlSecondsAfterFinished": _LOOK_KEPT_S,
            "template": {"metadata": {"labels": labels}, "spec": {**pod, "restartPolicy": "Never"}},
        },
    }


def _owner(name: str, uid: str) -> Manifest:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "uid": uid}


def scaled(replicas: int) -> Manifest:
    """What changes in a Deployment that runs no more, or again."""
    return {"spec": {"replicas": replicas}}


def service(environment: str, kept: Kept, *, namespace: str, version: str | None) -> Manifest:
    """The Service of an environment: it leads to what runs, and keeps what is known.

    Args:
        version: of the Service that was read; it is written only over that one.
    """
    target = kept.current.target if kept.current else None
    place = target.kubernetes if target else None
    port = target.port if target else 8080
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": f"fleet-{environment}",
            "namespace": namespace,
            "labels": environment_labels(environment),
            "annotations": {KEPT_AT: KEPT.dump_json(kept).decode()},
            **({"resourceVersion": version} if version else {}),
        },
        "spec": {
            "type": place.service if place else "ClusterIP",
            "selector": revision_labels(environment, kept.current.key if kept.current else None),
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }


def kept_in(service: Mapping[str, Any] | None, environment: str) -> Kept:
    """What the Service says; nothing when it is on its way out. Raises StoreUnavailable when it is somebody else's, or
    does not say it."""
    if service is None or service["metadata"].get("deletionTimestamp"):
        return Kept()
    place: Manifest = service["metadata"]
    labels: Mapping[str, str] = place.get("labels") or {}
    annotations: Mapping[str, str] = place.get("annotations") or {}
    name = f"fleet-{environment}"
    if labels.get(_MANAGED) != MANAGER:
        raise StoreUnavailable(f"Service {name} was made by somebody else: delete it, or name the environment anew")
    try:
        return KEPT.validate_json(annotations.get(KEPT_AT, ""))
    except ValueError as error:
        raise StoreUnavailable(f"Service {name} does not say what runs in {environment}: {error}") from error


def ingress(environment: str, kept: Kept, *, namespace: str) -> Manifest | None:
    """How people outside reach what runs; None where its target declares no way."""
    target = kept.current.target if kept.current else None
    if target is None or target.kubernetes is None or (rule := target.kubernetes.ingress) is None:
        return None
    backend = {"service": {"name": target.service_name, "port": {"number": target.port}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": target.service_name,
            "namespace": namespace,
            "labels": environment_labels(environment),
        },
        "spec": {
            "ingressClassName": rule.class_name,
            "tls": [{"hosts": [rule.host], "secretName": rule.tls_secret}],
            "rules": [
                {"host": rule.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
            ],
        },
    }
