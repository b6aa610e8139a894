"""RayCluster and RayService of KubeRay v1.7. Pure."""

from __future__ import annotations

from typing import Any

import yaml

from cluster.kuberay.config_map import FleetConfig
from cluster.kuberay.identity import Manifest, metadata
from cluster.kuberay.network import SERVE_PORT
from cluster.kuberay.pods import head_group, worker_group
from cluster.kuberay.settings import ClusterSettings
from cluster.kuberay.stores import gcs_options
from fleet.config.settings import ServeAppSettings, ServeSettings

RAY_API = "ray.io/v1"
_APPLICATIONS = (
    ("fleet", "gateway", "serve_apps.deployed:gateway", "/"),
    ("llm", "llm", "serve_apps.deployed:llm", "/v1"),
)
"""Name, deployment, builder and prefix; the names are those of serve_apps.app."""
_SERVICES = ("add_planning", "add_context", "add_coach", "add_workspace", "add_sessions")
"""Of serve_apps.rpc, which this package may not import."""
_OLD_CLUSTER_STAYS_S = 300


def ray_object(cluster: ClusterSettings, config: FleetConfig) -> Manifest:
    """The RayService or the RayCluster, whichever the settings ask for."""
    return ray_service(cluster, config) if cluster.kind == "service" else ray_cluster(cluster, config)


def ray_cluster(cluster: ClusterSettings, config: FleetConfig) -> Manifest:
    """A RayCluster that is kept when its images change; the operator adds the Service of its front."""
    place = metadata(cluster, cluster.name, "service", annotations={"ray.io/enable-serve-service": "true"})
    return {"apiVersion": RAY_API, "kind": "RayCluster", "metadata": place, "spec": _spec(cluster, config)}


def ray_service(cluster: ClusterSettings, config: FleetConfig) -> Manifest:
    """A RayService: a change of images starts a second cluster, which takes over when it is well.

    For a while both run. That is safe, because who owns a story is decided in the log by lease and epoch (GL-19).
    """
    return {
        "apiVersion": RAY_API,
        "kind": "RayService",
        "metadata": metadata(cluster, cluster.name, "service"),
        "spec": {
            "upgradeStrategy": {"type": "NewCluster"},
            "rayClusterDeletionDelaySeconds": _OLD_CLUSTER_STAYS_S,
            "excludeHeadPodFromServeSvc": True,
            "serveConfigV2": yaml.safe_dump(serve_config(config), sort_keys=False),
            "rayClusterConfig": _spec(cluster, config),
        },
    }


def serve_config(config: FleetConfig) -> dict[str, Any]:
    """What Serve runs, as its REST interface takes it."""
    front = config.serve
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": front.host, "port": SERVE_PORT},
        **({"grpc_options": _grpc_options(front)} if front.rpc_port is not None else {}),
        "applications": [
            {
                "name": name,
                "import_path": builder,
                "route_prefix": prefix,
                "deployments": [{"name": deployment, **_deployment(front.apps[deployment])}],
            }
            for name, deployment, builder, prefix in _APPLICATIONS
        ],
    }


def _grpc_options(front: ServeSettings) -> dict[str, Any]:
    return {
        "port": front.rpc_port,
        "grpc_servicer_functions": [f"serve_apps.rpc.services.{name}" for name in _SERVICES],
        "enable_reflection": False,
    }


def _deployment(app: ServeAppSettings) -> dict[str, Any]:
    return {
        "num_replicas": app.replicas,
        "max_ongoing_requests": app.max_ongoing_requests,
        "graceful_shutdown_timeout_s": app.graceful_shutdown_s,
        "ray_actor_options": {"num_cpus": 0.1, "label_selector": {"pool": "agents"}},
    }


def _spec(cluster: ClusterSettings, config: FleetConfig) -> Manifest:
    spec: Manifest = {
        "rayVersion": cluster.ray_version,
        "authOptions": {"mode": "token", "secretName": cluster.ray_token},
        "gcsFaultToleranceOptions": gcs_options(cluster),
        "headGroupSpec": head_group(cluster, config),
        "workerGroupSpecs": [worker_group(cluster, config, group) for group in cluster.workers],
    }
    if cluster.autoscaler:
        spec["enableInTreeAutoscaling"] = True
        spec["autoscalerOptions"] = {
            "version": "v2",
            "idleTimeoutSeconds": cluster.autoscaler.idle_timeout_s,
            "upscalingMode": cluster.autoscaler.upscaling,
        }
        # Version 2 replaces a pod instead of starting its container again.
        spec["headGroupSpec"]["template"]["spec"]["restartPolicy"] = "Never"
        for group in spec["workerGroupSpecs"]:
            group["template"]["spec"]["restartPolicy"] = "Never"
    return spec
