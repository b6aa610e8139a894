"""Clusters that would not work are refused by name, with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kuberay.render import load_cluster, render
from fleet.kernel.errors import ConfigError
from tests.support.cluster_manifests import document_of, files

STORE = {"secret": "fleet-stores", "key": "log"}
THERE: dict[str, Any] = {"kind": "existing", "host": "r.internal", "password": STORE, "cidrs": ["10.0.0.2/32"]}
BUCKET = {"kind": "s3", "url": "https://s3.example", "bucket": "fleet-blobs", "access_key": "secret://blobs-access",
          "secret_key": "secret://blobs-secret"}  # fmt: skip
GPU = {"name": "gpu", "pool": "gpu", "replicas": 1}


def workers_of(**changed: Any) -> list[dict[str, Any]]:
    """The groups of the small cluster, the first of them changed."""
    first, *rest = document_of("small")["workers"]
    return [{**first, **changed}, *rest]


def refused(folder: Path, name: str, changed: dict[str, Any]) -> ConfigError:
    """What a cluster with these keys is refused with."""
    document = {**document_of(name), **changed}
    file = folder / "ours.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in document.items() if value is not ...}))
    with pytest.raises(ConfigError) as caught:
        load_cluster(str(file), files())
    return caught.value


@pytest.mark.parametrize(
    ("name", "changed", "path", "mend"),
    [
        ("small", {"home": {"kind": "node"}}, "fleet.blobs",
         "set fleet.blobs: redis, fleet.blobs.kind: s3, or home.kind: shared"),
        ("small", {"home": {"kind": "node"}, "fleet": {"blobs": {"kind": "file"}}}, "fleet.blobs", "set fleet.blobs"),
        ("small", {"home": {"kind": "node"}, "fleet": {"blobs": {"kind": "file", "shared": True}}}, "fleet.blobs",
         "mounts nothing in common"),
        ("small", {"fleet": {"blobs": BUCKET}}, "network.egress", "give its addresses"),
        ("small", {"workers": [*workers_of(), GPU]}, "workers.2.gpus", "set gpus: 1 or more"),
        ("small", {"workers": [*workers_of(), {**GPU, "gpus": 1}]}, "workers.2.pool", "set images.gpu"),
        ("small", {"workers": workers_of(gpus=1)}, "workers.0.gpus", "use pool: gpu, or leave gpus out"),
        ("small", {"workers": workers_of(name="sandbox")}, "workers", "stands twice"),
        ("small", {"workers": workers_of()[:1]}, "workers", "no group has the pool 'sandbox'"),
        ("small", {"workers": workers_of(idle_timeout_s=60)}, "workers.0.idle_timeout_s", "set autoscaler"),
        ("small", {"workers": workers_of(max_replicas=3)}, "workers.0.max_replicas", "set autoscaler"),
        ("gpu", {"workers": [{"name": "a", "pool": "agents", "replicas": 5, "max_replicas": 3},
                             {"name": "s", "pool": "sandbox", "replicas": 1}]}, "workers.0.replicas", "from 5 to 3"),
        ("small", {"workers": workers_of(tolerations=[{"key": "a", "operator": "Equal"}])}, "workers.0.tolerations.0",
         "Equal needs a value"),
        ("gpu", {"ingress": {"class_name": "nginx", "tls_secret": "tls"}}, "ingress.host", "there is no TLS"),
        ("gpu", {"ingress": {"class_name": "nginx", "host": "a.example"}}, "ingress.tls_secret", "kubernetes.io/tls"),
        ("gpu", {"kind": "cluster", "network": {**document_of("gpu")["network"], "rpc_namespaces": ["apps"]}},
         "network.rpc_namespaces", "set kind: service"),
        ("small", {"env": {"OPENAI_API_KEY": "sk-1"}}, "env.OPENAI_API_KEY", "name it under env_secrets"),
        ("small", {"env": {"PROXY": "http://me:hunter2@proxy"}}, "env.PROXY", "name it under env_secrets"),
        ("small", {"env": {"A": "1"}, "env_secrets": {"A": STORE}}, "env.A", "keep one of them"),
        ("small", {"env": {"RAY_AUTH_MODE": "disabled"}}, "env.RAY_AUTH_MODE", "set by the operator"),
        ("small", {"fleet": {"forge": {"token": "ghp_1"}}}, "fleet.forge.token", "secret in clear text"),
        ("small", {"fleet": {"x": ["redis://:pw@host"]}}, "fleet.x.0", "secret in clear text"),
        ("small", {"fleet": {"redis_url": "redis://h"}}, "fleet.redis_url", "leave it out"),
        ("small", {"runs": {"namespace": "swe-fleet"}}, "runs.namespace", "name another one"),
        ("small", {"images": {k: v for k, v in document_of("small")["images"].items() if k != "toolbox"}},
         "images.toolbox", "set images.toolbox"),
        ("small", {"network": {}}, "network.api_server", "kubectl get endpoints kubernetes"),
        ("small", {"log": {**document_of("small")["log"], "storage": None}}, "log.storage", "set log.storage.size"),
        ("small", {"gcs": {**document_of("small")["gcs"], "storage": None}}, "gcs.storage", "set gcs.storage.size"),
        ("small", {"gcs": THERE, "log": THERE}, "gcs", "is the same server as log"),
        ("small", {"gcs": {**THERE, "database": 3}}, "gcs.database", "database 0"),
        ("small", {"gcs": {**THERE, "tls": True}}, "gcs", "kind: own"),
        ("small", {"ray_version": "2.51.0"}, "ray_version", "needs Ray 2.52"),
    ],
)  # fmt: skip
def test_cluster_that_would_not_work_is_refused_by_name(
    tmp_path: Path, name: str, changed: dict[str, Any], path: str, mend: str
) -> None:
    error = refused(tmp_path, name, changed)

    reasons = {problem["path"]: problem["reason"] for problem in error.details["problems"]}
    assert mend in reasons[path]
    assert path in error.message
    assert "ours.yaml" in error.message


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"images": {"head": "fleet:latest", "worker": "fleet"}}, "images.head"),
        ({"name": "Fleet"}, "name"),
        ({"name": "f" * 31}, "name"),
        ({"workers": workers_of(memory="16GB")}, "workers.0.memory"),
        ({"workers": workers_of(grace_s=20)}, "workers.0.grace_s"),
        ({"workers": []}, "workers"),
        ({"ray_token": ...}, "ray_token"),
        ({"surprise": 1}, "surprise"),
        ({"graph": {**document_of("small")["graph"], "storage": None}}, "graph.own.storage"),
    ],
)
def test_value_of_the_wrong_form_is_refused(tmp_path: Path, changed: dict[str, Any], path: str) -> None:
    error = refused(tmp_path, "small", changed)

    assert path in {problem["path"] for problem in error.details["problems"]}


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    changed = {"home": {"kind": "node"}, "network": {}, "env": {"TOKEN": "x"}}

    error = refused(tmp_path, "small", changed)

    assert {p["path"] for p in error.details["problems"]} == {"fleet.blobs", "network.api_server", "env.TOKEN"}


def test_value_of_a_secret_is_not_repeated(tmp_path: Path) -> None:
    assert "hunter2" not in refused(tmp_path, "small", {"env": {"PASSWORD": "hunter2"}}).message


@pytest.mark.parametrize(
    ("home", "blobs", "expected"),
    [
        ("shared", "file", {"kind": "file", "shared": True}),
        ("shared", {"kind": "file"}, {"kind": "file", "shared": True}),
        ("node", "redis", "redis"),
        ("node", BUCKET, BUCKET),
        ("shared", BUCKET, BUCKET),
    ],
)
def test_pods_are_told_of_blobs_that_all_of_them_reach(tmp_path: Path, home: str, blobs: Any, expected: Any) -> None:
    network = {**document_of("small")["network"], "egress": ["10.0.0.9/32"]}
    changed = {"home": {"kind": home}, "fleet": {"blobs": blobs}, "network": network}
    file = tmp_path / "ours.yaml"
    file.write_text(yaml.safe_dump({**document_of("small"), **changed}))

    (config,) = [m for m in render(load_cluster(str(file), files()), files()) if m["kind"] == "ConfigMap"
                 and "fleet.yaml" in m["data"]]  # fmt: skip

    assert yaml.safe_load(config["data"]["fleet.yaml"])["blobs"] == expected


@pytest.mark.parametrize("token", ["secret://forge-token"])
def test_reference_to_a_secret_is_no_secret(tmp_path: Path, token: str) -> None:
    forge = {"kind": "gitea", "url": "https://git.example", "repository": "a/b", "base": "main", "token": token}
    file = tmp_path / "ours.yaml"
    file.write_text(yaml.safe_dump({**document_of("small"), "fleet": {"forge": forge}}))

    assert load_cluster(str(file), files()).fleet["forge"]["token"] == token


def test_wrong_key_of_fleet_yaml_is_found_when_it_is_rendered(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(yaml.safe_dump({**document_of("small"), "fleet": {"council_shard": 2}}))
    cluster = load_cluster(str(file), files())

    with pytest.raises(ConfigError, match=r"fleet.yaml of cluster fleet: council_shard"):
        render(cluster, files())


@pytest.mark.parametrize(
    ("name", "expected"), [("nowhere", "cluster/nowhere.yaml is missing"), ("./x.yaml", "No such")]
)
def test_cluster_that_is_not_there_is_named(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_cluster(name, files())
