"""What is rendered of a cluster: admitted by KubeRay's definitions, the same bytes as before, nothing secret in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kuberay.access import target_rights
from cluster.kuberay.chart import chart
from cluster.kuberay.config_map import fleet_config
from cluster.kuberay.ray import serve_config
from cluster.kuberay.render import as_yaml, file_name, render
from cluster.kuberay.settings import ClusterSettings
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.settings import FleetSettings, ServeSettings
from fleet.kernel.errors import ConfigError
from fleet.policy.deploy import DeployTarget, MonitorSpec
from tests.support.cluster_manifests import cluster_named, every_ray_object, files, rendered
from tests.support.crds import admit, rules_of, schemas
from tests.support.kubernetes_jobs import deny_all_policy

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "kuberay"
CLUSTERS = ("small", "gpu")
HEAD_POD = ("headGroupSpec", "template", "spec", "containers")


def one(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The only object of that kind and name."""
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def values_of(value: Any) -> Iterator[str]:
    """Every text within."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from values_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from values_of(inner)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", CLUSTERS)
def test_rendered_cluster_is_the_golden_one(name: str) -> None:
    golden = GOLDEN / f"{name}.yaml"

    # Look at the difference, then write the file again: `fleet cluster render NAME > FILE`.
    assert as_yaml(rendered(cluster_named(name))) == golden.read_text()


def test_every_ray_object_is_admitted() -> None:
    manifests = every_ray_object()

    assert {m["kind"] for m in manifests} == {"RayService", "RayCluster"}
    assert [problem for m in manifests for problem in admit(m, schemas()[m["kind"]])] == []


def test_admission_knows_every_rule_of_the_definitions() -> None:
    found = {rule for schema in schemas().values() for rule in rules_of(schema)}

    assert len(found) == 6


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (["authOptions", "mode"], "tokens", "is not one of"),
        (["authOptions", "modus"], "token", "is unknown"),
        (["workerGroupSpecs", 0, "replicas"], "2", "must be integer"),
        (["workerGroupSpecs", 0, "groupName"], None, "may not be null"),
        ([*HEAD_POD, 0, "image"], 7, "must be string"),
        ([*HEAD_POD, 0, "resources", "limits", "cpu"], "many", "does not match"),
        (["managedBy"], "somebody", "must be either"),
        ([*HEAD_POD, 0, "ports"], [{"name": "a"}], "is missing"),
    ],
)  # fmt: skip
def test_admission_names_what_is_wrong(path: list[str | int], value: Any, expected: str) -> None:
    manifest = one(rendered(cluster_named("small", kind="cluster")), "RayCluster", "fleet")
    place: Any = manifest["spec"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    (problem,) = admit(manifest, schemas()["RayCluster"])

    assert expected in problem
    assert str(path[-1]) in problem


def test_admission_compares_with_what_was_there() -> None:
    schema = schemas()["RayCluster"]
    new = {"spec": {"managedBy": "ray.io/kuberay-operator"}}
    old = {"spec": {"managedBy": "kueue.x-k8s.io/multikueue"}}

    problems = admit(new, schema, old=old)

    assert [p for p in problems if "immutable" in p] == [".spec.managedBy: the managedBy field is immutable"]


@pytest.mark.parametrize(
    ("strategy", "is_admitted"),
    [
        ({"onSuccess": {"policy": "DeleteSelf"}, "onFailure": {"policy": "DeleteNone"}}, True),
        ({"onSuccess": {"policy": "DeleteSelf"}}, False),
        ({"deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}]}, True),
        ({"deletionRules": [{"policy": "DeleteSelf", "condition": {}}]}, False),
        ({"deletionRules": [{"policy": "DeleteSelf", "condition": {
            "jobStatus": "FAILED", "jobDeploymentStatus": "Failed"}}]}, False),
        ({"deletionRules": []}, False),
    ],
)  # fmt: skip
def test_rules_between_fields_are_checked(strategy: dict[str, Any], is_admitted: bool) -> None:
    spec = {"clusterSelector": {"ray.io/cluster": "small"}, "entrypoint": "true", "deletionStrategy": strategy}
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "seed", "namespace": "fleet"},
        "spec": spec,
    }

    assert (admit(job, schemas()["RayJob"]) == []) is is_admitted


@pytest.mark.parametrize("name", CLUSTERS)
def test_secrets_are_named_and_never_written(name: str) -> None:
    manifests = rendered(cluster_named(name))

    assert "Secret" not in {m["kind"] for m in manifests}
    for text in values_of(manifests):
        for password in re.findall(r"://[^/\s:]*:([^@\s]+)@", text):
            assert re.fullmatch(r"\$\([A-Z_]+\)", password), text


def test_variable_that_stands_in_another_one_comes_before_it() -> None:
    for manifest in every_ray_object():
        spec = manifest["spec"].get("rayClusterConfig", manifest["spec"])
        for group in (spec.get("headGroupSpec"), *spec.get("workerGroupSpecs", ())):
            seen: set[str] = set()
            for variable in group["template"]["spec"]["containers"][0]["env"] if group else ():
                assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= seen
                seen.add(variable["name"])


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_pod_is_unprivileged_and_every_image_has_a_digest(name: str) -> None:
    manifests = rendered(cluster_named(name))
    ray = one(manifests, "RayService", "fleet")["spec"]["rayClusterConfig"]
    groups = [ray["headGroupSpec"], *ray["workerGroupSpecs"]]
    pods = [g["template"]["spec"] for g in groups]
    pods += [m["spec"]["template"]["spec"] for m in manifests if m["kind"] == "StatefulSet"]

    assert len(pods) >= 4
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["terminationGracePeriodSeconds"] >= 45
        for container in pod["containers"]:
            assert "@sha256:" in container["image"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["resources"]["limits"] == container["resources"]["requests"]


def test_token_of_an_account_is_mounted_only_where_the_api_server_is_asked() -> None:
    ray = one(rendered(cluster_named("small")), "RayService", "fleet")["spec"]["rayClusterConfig"]
    scaled = one(rendered(cluster_named("gpu")), "RayService", "fleet")["spec"]["rayClusterConfig"]

    def mounts(spec: dict[str, Any]) -> dict[str, bool]:
        groups = {"head": spec["headGroupSpec"], **{g["groupName"]: g for g in spec["workerGroupSpecs"]}}
        return {name: g["template"]["spec"]["automountServiceAccountToken"] for name, g in groups.items()}

    assert mounts(ray) == {"head": False, "agents": False, "sandbox": True}
    assert mounts(scaled) == {"head": True, "agents": False, "sandbox": True, "gpu": False}


def test_sandbox_account_has_the_rights_that_its_runs_need_and_no_other() -> None:
    manifests = rendered(cluster_named("small"))
    page = (packaged_directory().parent / "docs" / "sandbox.md").read_text()
    documented = list(yaml.safe_load_all(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]))[1]

    assert one(manifests, "Role", "fleet-runs")["rules"] == documented["rules"]
    assert [m["kind"] for m in manifests if m["kind"] in ("Role", "ClusterRole")] == ["Role"]
    assert one(manifests, "RoleBinding", "fleet-runs")["subjects"][0]["name"] == "fleet-sandbox"


def with_target(namespace: str = "previews", **network: Any) -> ClusterSettings:
    """The small cluster without runs as Jobs, with a deploy target of kind kubernetes."""
    cluster = cluster_named("small")
    checks = [{"name": "alive", "kind": "http", "target": "/", "threshold": 0}]
    place = {"namespace": namespace, "image": f"registry.example/shop@sha256:{'1' * 64}"}
    target = {"environment": "preview", "kind": "kubernetes", "argv": ["python", "app.py"], "kubernetes": place}
    deploy = {"enabled": True, "targets": [{**target, "monitor": {"checks": checks}}]}
    given = cluster.network.model_copy(update={"api_server": ("10.0.0.1/32",), **network})
    return cluster.model_copy(update={"fleet": {**cluster.fleet, "deploy": deploy}, "network": given, "runs": None})


def test_deploy_target_gives_the_sandbox_rights_in_its_namespace_alone() -> None:
    cluster = with_target()
    found = rendered(cluster)
    there = [m for m in found if m["metadata"].get("namespace") == "previews"]
    assert [m["kind"] for m in there] == ["ServiceAccount", "Role", "RoleBinding"]
    namespace = one(found, "Namespace", "previews")["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    rules = one(found, "Role", f"{cluster.name}-targets")["rules"]
    (named,) = (r["resourceNames"] for r in rules if r["resources"] == ["services/proxy"])
    assert named == ["fleet-preview:http"]
    assert [r["verbs"] for r in rules if r["resources"] == ["secrets"]] == [["create", "patch"]]
    (subject,) = one(found, "RoleBinding", f"{cluster.name}-targets")["subjects"]
    assert subject["name"] == f"{cluster.name}-sandbox"
    policy = one(found, "NetworkPolicy", f"{cluster.name}-runs")
    assert policy["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.0.0.1/32"}}]
    (ray,) = [m for m in found if m["kind"].startswith("Ray")]
    groups = {g["groupName"]: g for g in (ray["spec"].get("rayClusterConfig") or ray["spec"])["workerGroupSpecs"]}
    seen = {name for name, g in groups.items() if g["template"]["spec"]["automountServiceAccountToken"]}
    assert seen == {g.name for g in cluster.workers if g.pool == "sandbox"}


def test_role_of_the_page_about_deployments_is_the_rendered_one() -> None:
    page = (packaged_directory().parent / "docs" / "deploy.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    (documented,) = [b for b in blocks if b.get("kind") == "Role"]
    declared = [b["deploy"]["targets"][0] for b in blocks if "deploy" in b]
    (target,) = [t for t in map(DeployTarget.model_validate, declared) if t.kind == "kubernetes"]
    smoke = {"name": "smoke", "kind": "command", "target": "true", "threshold": 0}
    monitor = {"checks": [*target.model_dump()["monitor"]["checks"], smoke]}
    assert (
        target_rights([target.model_copy(update={"monitor": MonitorSpec.model_validate(monitor)})])
        == documented["rules"]
    )


@pytest.mark.parametrize(
    ("cluster", "why"),
    [
        (with_target(api_server=()), "network.api_server: deploy targets of kind kubernetes"),
        (with_target(cluster_named("small").namespace), "preview has the namespace of the fleet"),
    ],
)
def test_deploy_target_that_the_cluster_cannot_hold_is_refused(cluster: ClusterSettings, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        rendered(cluster)


def test_policy_of_the_runs_is_the_one_that_the_sandbox_looks_for() -> None:
    policy = one(rendered(cluster_named("small")), "NetworkPolicy", "swe-fleet-runs")
    wanted = deny_all_policy("swe-fleet-runs")

    assert policy["spec"] == wanted["spec"]
    assert policy["metadata"]["namespace"] == wanted["metadata"]["namespace"]


def test_every_pod_is_denied_first_and_stores_are_open_to_ray_alone() -> None:
    manifests = rendered(cluster_named("small"))

    everything = one(manifests, "NetworkPolicy", "fleet-deny-all")["spec"]
    assert everything == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []}
    for store in ("log", "cache", "gcs", "graph"):
        (rule,) = one(manifests, "NetworkPolicy", f"fleet-{store}")["spec"]["ingress"]
        (peer,) = rule["from"]
        assert peer["podSelector"]["matchExpressions"][0]["values"] == ["head", "worker"]


def test_stores_that_are_there_already_are_reached_by_address() -> None:
    manifests = rendered(cluster_named("gpu"))

    assert {m["metadata"]["name"] for m in manifests if m["kind"] == "StatefulSet"} == {"fleet-gcs"}
    (rule,) = one(manifests, "NetworkPolicy", "fleet-to-graph")["spec"]["egress"]
    assert rule == {"to": [{"ipBlock": {"cidr": "10.20.0.20/32"}}], "ports": [{"port": 7687, "protocol": "TCP"}]}


def test_log_store_syncs_every_write_and_evicts_nothing() -> None:
    text = one(rendered(cluster_named("small")), "ConfigMap", "fleet-log")["data"]["redis.conf"]

    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction"} <= set(text.splitlines())
    assert "maxmemory 1610612736" in text.splitlines()


def test_gpu_group_asks_for_gpus_and_is_started_by_the_autoscaler() -> None:
    ray = one(rendered(cluster_named("gpu")), "RayService", "fleet")["spec"]["rayClusterConfig"]
    (gpu,) = [g for g in ray["workerGroupSpecs"] if g["groupName"] == "gpu"]

    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert (gpu["replicas"], gpu["minReplicas"], gpu["maxReplicas"]) == (0, 0, 4)
    assert ray["autoscalerOptions"]["version"] == "v2"
    assert gpu["template"]["spec"]["restartPolicy"] == "Never"
    assert gpu["labels"] == {"pool": "gpu"}


def test_head_keeps_its_state_in_redis_and_offers_no_cpu() -> None:
    ray = one(rendered(cluster_named("small")), "RayService", "fleet")["spec"]["rayClusterConfig"]

    assert ray["gcsFaultToleranceOptions"]["redisAddress"] == "fleet-gcs:6379"
    assert ray["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert ray["authOptions"] == {"mode": "token", "secretName": "fleet-ray-token"}


def test_without_runs_bubblewrap_works_in_the_pods_of_its_pool_alone() -> None:
    manifests = rendered(cluster_named("small", runs=None))
    ray = one(manifests, "RayService", "fleet")["spec"]["rayClusterConfig"]
    pods = {g["groupName"]: g["template"]["spec"] for g in ray["workerGroupSpecs"]}

    assert pods["sandbox"]["containers"][0]["securityContext"]["procMount"] == "Unmasked"
    assert pods["sandbox"]["hostUsers"] is False
    assert pods["agents"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {m["metadata"].get("namespace", "swe-fleet") for m in manifests} == {"swe-fleet"}


@pytest.mark.parametrize("name", CLUSTERS)
def test_config_of_the_pods_is_valid_for_the_product(name: str) -> None:
    data = one(rendered(cluster_named(name)), "ConfigMap", "fleet-config")["data"]

    fleet = FleetSettings.model_validate({"home": "/var/lib/fleet", **yaml.safe_load(data["fleet.yaml"])})
    assert fleet.sandbox.backend.kind == "kubernetes"
    assert ServeSettings.model_validate(yaml.safe_load(data["serve.yaml"])).host == "0.0.0.0"
    assert fleet.blobs.model_dump(exclude={"limit_bytes"}) == (
        {"kind": "redis"} if name == "gpu" else {"kind": "file", "shared": True}
    )


def test_files_of_the_site_reach_the_pods_under_their_names(tmp_path: Path) -> None:
    (tmp_path / "prompts" / "roles").mkdir(parents=True)
    (tmp_path / "prompts" / "roles" / "qa.md").write_text("Test it.\n")
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "ours.yaml").write_text("not: for pods\n")
    manifests = render(cluster_named("small"), ConfigFiles(packaged_directory(), tmp_path))

    assert one(manifests, "ConfigMap", "fleet-config")["data"]["prompts--roles--qa.md"] == "Test it.\n"
    ray = one(manifests, "RayService", "fleet")["spec"]["rayClusterConfig"]
    (volume,) = [v for v in ray["headGroupSpec"]["template"]["spec"]["volumes"] if v["name"] == "config"]
    assert {"key": "prompts--roles--qa.md", "path": "prompts/roles/qa.md"} in volume["configMap"]["items"]
    assert "cluster--ours.yaml" not in str(manifests)


@pytest.mark.parametrize("name", CLUSTERS)
def test_applications_are_what_serve_takes_with_no_key_that_it_drops(name: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    given = yaml.safe_load(one(rendered(cluster_named(name)), "RayService", "fleet")["spec"]["serveConfigV2"])

    taken = ServeDeploySchema.model_validate(given)

    # Serve drops a deployment's key that it does not know in silence, so the names are compared with what it has.
    assert given.keys() <= type(taken).model_fields.keys()
    for application, read in zip(given["applications"], taken.applications, strict=True):
        assert application.keys() <= type(read).model_fields.keys()
        for deployment, found in zip(application["deployments"], read.deployments, strict=True):
            assert deployment.keys() <= type(found).model_fields.keys()
            assert deployment["ray_actor_options"].keys() <= type(found.ray_actor_options).model_fields.keys()


def test_grpc_is_served_where_the_front_has_a_port_for_it() -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve_apps.rpc.services import SERVICER_FUNCTIONS

    config = fleet_config(cluster_named("small"), files())
    assert "grpc_options" not in serve_config(config)
    given = serve_config(config._replace(serve=config.serve.model_copy(update={"rpc_port": 9000})))
    taken = ServeDeploySchema.model_validate(given).grpc_options
    assert (taken.port, taken.enable_reflection) == (9000, False)
    assert taken.grpc_servicer_functions == list(SERVICER_FUNCTIONS)


def test_grpc_has_a_service_for_the_namespaces_that_may_call_it(tmp_path: Path) -> None:
    named = cluster_named("small")
    cluster = named.model_copy(update={"network": named.network.model_copy(update={"rpc_namespaces": ("apps", "ci")})})
    with pytest.raises(ConfigError, match="set rpc_port in serve.yaml"):
        render(cluster, files())
    front = files().document("serve.yaml")
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump({**front, "host": "0.0.0.0", "rpc_port": 9000}))  # noqa: S104
    opened = ConfigFiles(packaged_directory(), tmp_path)
    manifests = render(cluster, opened)
    service = one(manifests, "Service", "fleet-rpc")["spec"]
    assert service["selector"] == {"swefleet.io/cluster": "fleet", "ray.io/serve": "true"}
    assert [(port["port"], port["appProtocol"]) for port in service["ports"]] == [(9000, "kubernetes.io/h2c")]
    (rule,) = one(manifests, "NetworkPolicy", "fleet-rpc")["spec"]["ingress"]
    assert rule["ports"] == [{"port": 9000, "protocol": "TCP"}]
    assert [list(peer["namespaceSelector"]["matchLabels"].values()) for peer in rule["from"]] == [["apps"], ["ci"]]
    assert [m for m in render(named, opened) if m["metadata"]["name"] == "fleet-rpc"] == [], "nobody may call it"


def test_change_of_the_config_rolls_the_pods() -> None:
    before = fleet_config(cluster_named("small"), files()).digest

    assert fleet_config(cluster_named("small", fleet={"council_shards": 2}), files()).digest != before


def test_config_files_over_the_size_of_a_config_map_are_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "long.md").write_text("x" * 1_000_001)

    with pytest.raises(ConfigError, match="a ConfigMap holds"):
        fleet_config(cluster_named("small"), ConfigFiles(packaged_directory(), tmp_path))


def test_config_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "odd.md").write_bytes(b"ab\xff")

    with pytest.raises(ConfigError, match=r"odd.md is not UTF-8 at byte 2"):
        fleet_config(cluster_named("small"), ConfigFiles(packaged_directory(), tmp_path))


def test_ray_cluster_gets_a_service_of_its_front() -> None:
    manifest = one(rendered(cluster_named("gpu", kind="cluster")), "RayCluster", "fleet")

    assert manifest["metadata"]["annotations"] == {"ray.io/enable-serve-service": "true"}
    assert one(rendered(cluster_named("gpu")), "Ingress", "fleet")["spec"]["tls"][0]["secretName"] == "fleet-tls"


def test_rendered_yaml_reads_as_it_was_and_is_stable() -> None:
    manifests = rendered(cluster_named("gpu"))

    assert list(yaml.safe_load_all(as_yaml(manifests))) == manifests
    assert as_yaml(rendered(cluster_named("gpu"))) == as_yaml(manifests)
    names = [file_name(n, m) for n, m in enumerate(manifests, 1)]
    assert names == sorted(names)
    assert len(set(names)) == len(names)


def filled(text: str, values: dict[str, Any]) -> str:
    """The template as Helm fills it, for the forms that a chart of ours may hold; another one fails the test."""

    def value_of(found: re.Match[str]) -> str:
        if found.group() == '{{ "{{" }}':
            return "{{"
        form = re.fullmatch(
            r'\{\{ \(index \.Values\.(\w+) "([\w.-]+)"\)(?:\.(\w+))? \| (quote|int) \}\}', found.group()
        )
        assert form, found.group()
        value = values[form[1]][form[2]]
        return str(int(value[form[3]])) if form[3] else f'"{value}"'

    return re.sub(r"\{\{.*?\}\}", value_of, text)


@pytest.mark.parametrize("name", CLUSTERS)
def test_chart_with_its_own_values_is_the_same_objects(name: str) -> None:
    cluster = cluster_named(name, env={"GREETING": "{{ not a template }}"})
    manifests = rendered(cluster)

    found = chart(cluster, manifests, version="1.2.3")

    values = yaml.safe_load(found["values.yaml"])
    about = yaml.safe_load(found["Chart.yaml"])
    assert (about["apiVersion"], about["version"]) == ("v2", "1.2.3")
    templates = [text for path, text in sorted(found.items()) if path.startswith("templates/")]
    again = [*yaml.safe_load_all(found["namespaces.yaml"]), *(yaml.safe_load(filled(t, values)) for t in templates)]
    by_name = [(m["kind"], m["metadata"]["name"], m["metadata"].get("namespace")) for m in manifests]
    assert sorted(again, key=str) == sorted(manifests, key=str)
    assert len(set(by_name)) == len(by_name)


def test_values_of_a_chart_change_images_sizes_and_counts() -> None:
    cluster = cluster_named("gpu")
    found = chart(cluster, rendered(cluster), version="1.2.3")
    values = yaml.safe_load(found["values.yaml"])
    values["workers"]["gpu"]["maxReplicas"] = 9
    values["images"]["gpu"] = "registry/other@sha256:1"
    values["storage"]["gcs"] = "9Gi"

    text = "".join(filled(t, values) for path, t in found.items() if path.startswith("templates/"))

    assert "maxReplicas: 9" in text
    assert text.count("registry/other@sha256:1") == 1
    assert 'storage: "9Gi"' in text
