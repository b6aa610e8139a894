"""Namespaces, accounts and their rights: each account may do what its pods do, and nothing more. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cluster.kuberay.identity import Manifest, labels, metadata
from cluster.kuberay.settings import ClusterSettings
from fleet.policy.deploy import DeployTarget

_GROUP = "rbac.authorization.k8s.io"

_RUN_RIGHTS = (
    (["batch"], ["jobs"], ["create", "get", "list", "delete"]),
    ([""], ["secrets"], ["create"]),
    ([""], ["pods"], ["list", "delete"]),
    ([""], ["pods/log"], ["get"]),
    (["networking.k8s.io"], ["networkpolicies"], ["list"]),
)
"""What the sandbox does in the namespace of the runs (docs/sandbox.md); it reads no Secret."""


def namespaces(cluster: ClusterSettings) -> list[Manifest]:
    """The namespace of the fleet and that of the runs, each with the strictest pod standard that it can bear."""
    # Bubblewrap inside of a pod makes namespaces of its own, which the standard `baseline` forbids.
    fleet = _namespace(cluster, cluster.namespace, "baseline" if cluster.runs else "privileged")
    return [fleet, *([_namespace(cluster, cluster.runs.namespace, "restricted")] if cluster.runs else [])]


def _namespace(cluster: ClusterSettings, name: str, standard: str) -> Manifest:
    levels = {"pod-security.kubernetes.io/enforce": standard, "pod-security.kubernetes.io/warn": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {**labels(cluster, "namespace"), **levels}},
    }


def accounts(cluster: ClusterSettings) -> list[Manifest]:
    """One account for each kind of pod; the operator itself adds the autoscaler's rights to that of the head."""
    names = ["head", "worker", "sandbox", "store"]
    found = [_account(cluster, f"{cluster.name}-{name}", cluster.namespace) for name in names]
    # Pods of runs name no account, so theirs is `default`: it gets no token.
    return [*found, *([_account(cluster, "default", cluster.runs.namespace)] if cluster.runs else [])]


def _account(cluster: ClusterSettings, name: str, namespace: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(cluster, name, "access", namespace=namespace),
        "automountServiceAccountToken": False,
    }


def run_rights(cluster: ClusterSettings) -> list[Manifest]:
    """The sandbox's account may make and end Jobs in the namespace of the runs, and only there."""
    if cluster.runs is None:
        return []
    rules = [{"apiGroups": g, "resources": r, "verbs": v} for g, r, v in _RUN_RIGHTS]
    return _role(cluster, f"{cluster.name}-runs", cluster.runs.namespace, rules)


def target_objects(cluster: ClusterSettings, targets: Sequence[DeployTarget]) -> list[Manifest]:
    """For each namespace of deploy targets: the namespace, its account without a token, and what the sandbox may do."""
    found: list[Manifest] = []
    for namespace in dict.fromkeys(target.kubernetes.namespace for target in targets if target.kubernetes):
        there = [target for target in targets if target.kubernetes and target.kubernetes.namespace == namespace]
        found.append(_namespace(cluster, namespace, "restricted"))
        found.append(_account(cluster, "default", namespace))
        found += _role(cluster, f"{cluster.name}-targets", namespace, target_rights(there))
    return found


def target_rights(targets: Iterable[DeployTarget]) -> list[Manifest]:
    """What deploying needs in the namespace of these targets: of Services those of the environments alone, and no right
    to read a Secret (docs/deploy.md)."""
    targets = list(targets)
    services = sorted(target.service_name for target in targets)
    found: list[Manifest] = [
        # Names cannot be told apart where something is made: the right to create is one for all.
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create", "get", "list", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["services"],
            "resourceNames": services,
            "verbs": ["get", "patch", "delete"],
        },
        {
            "apiGroups": [""],
            "resources": ["services/proxy"],
            "resourceNames": [f"{name}:http" for name in services],
            "verbs": ["get"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    if any(check.kind == "command" for target in targets for check in target.monitor.checks):
        found.append({"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "patch", "delete"]})
    if any(target.kubernetes and target.kubernetes.ingress for target in targets):
        group = ["networking.k8s.io"]
        found.append({"apiGroups": group, "resources": ["ingresses"], "verbs": ["create", "patch", "delete"]})
    return found


def _role(cluster: ClusterSettings, name: str, namespace: str, rules: list[Manifest]) -> list[Manifest]:
    place = metadata(cluster, name, "access", namespace=namespace)
    sandbox = {"kind": "ServiceAccount", "name": f"{cluster.name}-sandbox", "namespace": cluster.namespace}
    return [
        {"apiVersion": f"{_GROUP}/v1", "kind": "Role", "metadata": place, "rules": rules},
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "RoleBinding",
            "metadata": place,
            "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": name},
            "subjects": [sandbox],
        },
    ]
