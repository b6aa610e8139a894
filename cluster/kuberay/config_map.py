"""The fleet's own config files as a ConfigMap, and what the cluster decides in them. Pure but for reading the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import yaml

from cluster.kuberay.identity import Manifest, metadata
from cluster.kuberay.rules import blobs_of
from cluster.kuberay.settings import ClusterSettings
from fleet.config.document import validated
from fleet.config.files import ConfigFiles
from fleet.config.settings import FleetSettings, ServeSettings
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import ConfigError
from fleet.policy.commands.deploy_kubernetes import OWN_API
from fleet.policy.deploy import DeployTarget

CONFIG_PLACE, HOME_PLACE = "/etc/fleet/config", "/var/lib/fleet"
_MAX_BYTES = 1_000_000
"""A ConfigMap holds 1 MiB with its names."""


class FleetConfig(NamedTuple):
    """What the pods find at FLEET_CONFIG."""

    files: dict[str, str]
    """Name below the directory, with `/` between folders -> text."""
    serve: ServeSettings
    targets: tuple[DeployTarget, ...] = ()
    """Deploy targets in this cluster."""

    @property
    def digest(self) -> str:
        """Changes with every byte of the files; pods carry it, so that a change rolls them."""
        return str(digest_of_json(self.files))


def fleet_config(cluster: ClusterSettings, files: ConfigFiles) -> FleetConfig:
    """The files of the site, and fleet.yaml and serve.yaml as this cluster needs them.

    Raises:
        ConfigError: fleet.yaml is none after the keys of `fleet` replaced its own, a file is no text, or all together
            are over 1 MB.
    """
    site = [name for name in files.names() if files.overlay and (files.overlay / name).is_file()]
    found = {name: _text(files, name) for name in site if PurePosixPath(name).parts[0] != "cluster"}
    fleet = {**files.document("fleet.yaml"), **cluster.fleet, **_decided(cluster), "placement": placement_of(cluster)}
    if cluster.home.kind == "shared" and blobs_of(fleet)[0] == "file":
        fleet["blobs"] = {"kind": "file", "shared": True}
    known = {"home": HOME_PLACE, "redis_url": "redis://log", "neo4j": {"uri": "bolt://graph", "password": "-"}}
    made = validated(FleetSettings, {**fleet, **known}, file=f"fleet.yaml of cluster {cluster.name}")
    # Other pods and the ingress reach the front, so it may not listen on loopback; the network policies guard it.
    serve = {**files.document("serve.yaml"), "host": "0.0.0.0"}  # noqa: S104
    settings = validated(ServeSettings, serve, file=f"serve.yaml of cluster {cluster.name}")
    found |= {"fleet.yaml": _yaml(fleet), "serve.yaml": _yaml(serve)}
    size = sum(len(name.encode()) + len(text.encode()) for name, text in found.items())
    if size > _MAX_BYTES:
        raise ConfigError(
            f"the config files have {size} bytes together, and a ConfigMap holds {_MAX_BYTES}; shorten the prompts",
            size=size,
        )
    return FleetConfig(dict(sorted(found.items())), settings, _targets_here(made))


def _targets_here(fleet: FleetSettings) -> tuple[DeployTarget, ...]:
    declared = fleet.deploy.targets if fleet.deploy.enabled else ()
    return tuple(target for target in declared if target.kubernetes and target.kubernetes.url == OWN_API)


def placement_of(cluster: ClusterSettings) -> Any:
    """Labels of nodes by kind of actor: the pools of this cluster, unless its file says other ones."""
    pools = {group.pool for group in cluster.workers}
    placed = {kind: {"pool": "agents"} for kind in ("council", "role", "context", "projector", "notary")}
    placed |= {"sandbox": {"pool": "sandbox"}, "engine": {"pool": "gpu" if "gpu" in pools else "agents"}}
    own: Any = cluster.fleet.get("placement", {})
    # What is no mapping is refused with the rest of fleet.yaml.
    return {**placed, **own} if isinstance(own, Mapping) else own


def _decided(cluster: ClusterSettings) -> dict[str, Any]:
    if cluster.runs is None:
        return {"sandbox": {"backend": {"kind": "bubblewrap"}}}
    runs = cluster.runs
    backend = {
        "kind": "kubernetes",
        "image": cluster.images.toolbox,
        "namespace": runs.namespace,
        "runtime_class": runs.runtime_class,
        "node_labels": dict(runs.node_labels),
        "max_parallel": runs.max_parallel,
    }
    return {"sandbox": {"backend": {key: value for key, value in backend.items() if value}}}


def _text(files: ConfigFiles, name: str) -> str:
    try:
        return files.read(name).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{files.path(name)} is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=120)


def config_map(cluster: ClusterSettings, config: FleetConfig) -> Manifest:
    """The files; a `/` in a name becomes `--`, and the volume puts it back."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(cluster, f"{cluster.name}-config", "config"),
        "data": {_key(name): text for name, text in config.files.items()},
    }


def config_volume(cluster: ClusterSettings, config: FleetConfig) -> Manifest:
    """The volume that holds the files under their own names."""
    items = [{"key": _key(name), "path": name} for name in config.files]
    return {"name": "config", "configMap": {"name": f"{cluster.name}-config", "items": items}}


def _key(name: str) -> str:
    return name.replace("/", "--")
