"""Namespaces, accounts and their rights: each account may do what its pods do, and nothing more. Pure."""

from __future__ import annotations

from cluster.kuberay.identity import Manifest, labels, metadata
from cluster.kuberay.settings import ClusterSettings

__all__ = ["accounts", "namespaces", "run_rights"]

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
    name = f"{cluster.name}-runs"
    place = metadata(cluster, name, "access", namespace=cluster.runs.namespace)
    group = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": place,
            "rules": [{"apiGroups": g, "resources": r, "verbs": v} for g, r, v in _RUN_RIGHTS],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": place,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": f"{cluster.name}-sandbox", "namespace": cluster.namespace}],
        },
    ]
