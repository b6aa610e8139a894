"""From one file of config/cluster to all objects of a cluster, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from cluster.kuberay.access import accounts, namespaces, run_rights, target_objects
from cluster.kuberay.config_map import FleetConfig, config_map, fleet_config
from cluster.kuberay.identity import Manifest
from cluster.kuberay.network import disruption_budgets, ingress, network_policies, rpc_door
from cluster.kuberay.pods import home_claim
from cluster.kuberay.ray import ray_object
from cluster.kuberay.rules import problems_of
from cluster.kuberay.settings import ClusterSettings
from cluster.kuberay.stores import own_stores
from fleet.config.document import parse_document, validated
from fleet.config.files import ConfigFiles
from fleet.kernel.errors import ConfigError


def load_cluster(name: str, files: ConfigFiles) -> ClusterSettings:
    """The cluster of that name in config/cluster, or of a file.

    Args:
        name: `small` for config/cluster/small.yaml, or a path with a `/` or an ending.

    Raises:
        ConfigError: there is no such file, or it is wrong; names file, path, reason and mend of every problem.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", file=str(path)) from error
    else:
        path, raw = files.path(f"cluster/{name}.yaml"), files.read(f"cluster/{name}.yaml")
    cluster = validated(ClusterSettings, parse_document(raw, file=str(path)), file=str(path))
    if problems := problems_of(cluster):
        listed = "; ".join(f"{problem['path']}: {problem['reason']}" for problem in problems)
        raise ConfigError(f"{path}: {listed}", file=str(path), problems=problems)
    return cluster


def render(cluster: ClusterSettings, files: ConfigFiles) -> list[Manifest]:
    """Every object of the cluster; what others need comes first. Secrets are named and never made.

    Raises:
        ConfigError: the fleet's own config files are wrong together with this cluster.
    """
    config = fleet_config(cluster, files)
    _check_targets(cluster, config)
    return [
        *namespaces(cluster),
        *accounts(cluster),
        *run_rights(cluster),
        *target_objects(cluster, config.targets),
        # Before the first pod, so that none runs without them.
        *network_policies(cluster, asks_api=bool(config.targets)),
        config_map(cluster, config),
        *home_claim(cluster),
        *own_stores(cluster),
        *disruption_budgets(cluster),
        ray_object(cluster, config),
        *ingress(cluster),
        *_rpc(cluster, config),
    ]


def _check_targets(cluster: ClusterSettings, config: FleetConfig) -> None:
    """Raises ConfigError when deploy targets cannot be in this cluster as they are declared."""
    taken = {cluster.namespace: "the fleet", **({cluster.runs.namespace: "the runs"} if cluster.runs else {})}
    for target in config.targets:
        if target.kubernetes and (of := taken.get(target.kubernetes.namespace)):
            raise ConfigError(
                f"deploy.targets: {target.environment} has the namespace of {of}; name one that holds nothing else",
                key="deploy.targets",
            )
    if config.targets and not cluster.network.api_server:
        raise ConfigError(
            "network.api_server: deploy targets of kind kubernetes ask the API server; give its addresses "
            "(kubectl get endpoints kubernetes), as 10.0.0.1/32",
            key="network.api_server",
        )


def _rpc(cluster: ClusterSettings, config: FleetConfig) -> list[Manifest]:
    port = config.serve.rpc_port
    if port is not None:
        return rpc_door(cluster, port)
    if cluster.network.rpc_namespaces:
        raise ConfigError(
            "network.rpc_namespaces: gRPC is off; set rpc_port in serve.yaml, or leave the namespaces out",
            key="network.rpc_namespaces",
        )
    return []


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, several lines stand as a block, and nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(manifests: Iterable[Manifest]) -> str:
    """Documents one after the other; the same objects always give the same bytes."""
    return "---\n".join(yaml.dump(m, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True) for m in manifests)


def file_name(number: int, manifest: Manifest) -> str:
    """Such as `07-networkpolicy-fleet-dns.yaml`: a folder of these is applied in the right order."""
    return f"{number:02d}-{manifest['kind'].lower()}-{manifest['metadata']['name']}.yaml"
