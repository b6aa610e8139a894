"""KubeRay: one file of config/cluster becomes all objects of a fleet, applied, watched, scaled and deleted."""

from cluster.kuberay.api import KubeApi, Reference, connect, reference_of
from cluster.kuberay.chart import chart
from cluster.kuberay.conditions import Finding, finding_of
from cluster.kuberay.deploy import Change, apply_cluster, delete_cluster, scale_group, status_of, wait_until_ready
from cluster.kuberay.kubeconfig import Access, find_access
from cluster.kuberay.ray import ray_job
from cluster.kuberay.render import as_yaml, file_name, load_cluster, render
from cluster.kuberay.settings import ClusterSettings

__all__ = [
    "Access",
    "Change",
    "ClusterSettings",
    "Finding",
    "KubeApi",
    "Reference",
    "apply_cluster",
    "as_yaml",
    "chart",
    "connect",
    "delete_cluster",
    "file_name",
    "find_access",
    "finding_of",
    "load_cluster",
    "ray_job",
    "reference_of",
    "render",
    "scale_group",
    "status_of",
    "wait_until_ready",
]
