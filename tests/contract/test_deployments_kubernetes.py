"""Deployments in a cluster: crashes, lost answers, what the cluster may do to pods, and what pods may do (LC-49).

The cluster is the stand-in of tests/support/kubernetes_targets.py: real HTTP, and programs that really run.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.kuberay.access import target_rights
from fleet.deploy.kubernetes.api import ClusterApi
from fleet.deploy.kubernetes.target import KubernetesDeployments, RoutedDeployments
from fleet.deploy.memory import MemoryDeployments
from fleet.deploy.port import EndedRevision, Occupancy, Placed, Standing
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError, NotFound, PolicyDenied, SandboxUnavailable, StoreUnavailable
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.deploy import HealthCheckSpec
from fleet.policy.secret_grants import SecretGrant, SecretPolicy
from fleet.sandbox.backends.kubernetes.api import cluster_client
from fleet.sandbox.service.runs import RunSecrets
from fleet.secrets.memory import MemoryAccessTrail, MemorySecrets
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.trees.memory import MemoryBlobStore
from tests.support.deployed import app, target_of
from tests.support.http_stand_in import Reply, Request
from tests.support.kubernetes_objects import status
from tests.support.kubernetes_targets import IMAGE, NAMESPACE, TargetCluster, deployments_in, serving_targets
from tests.support.sandbox import eventually, put_tree, state_folder

pytestmark = pytest.mark.asyncio

ENV = "preview"
SERVICE = f"fleet-{ENV}"


@dataclass
class At:
    """One cluster with one environment."""

    cluster: TargetCluster
    url: str
    root: Path
    blobs: MemoryBlobStore
    now: KubernetesDeployments

    async def placed(self, program: bytes, *, place: dict[str, Any] | None = None, **fields: Any) -> Placed:
        where = {"namespace": NAMESPACE, "image": IMAGE, **(place or {})}
        target = target_of(ENV, **{"kind": "kubernetes", "kubernetes": where, **fields})
        tree = await put_tree(self.blobs, {"app.py": program})
        return Placed(RunKey(secrets.token_hex(32)), StoryId("st-deployed"), tree, "python", target)

    def again(self, **fields: Any) -> KubernetesDeployments:
        """What a process finds that comes after."""
        return deployments_in(self.url, self.root, self.blobs, **fields)

    def said(self) -> str | None:
        """What people get; None where nobody answers."""
        code, text = self.cluster.reached(SERVICE)
        return text if code == 200 else None

    def left(self) -> list[str]:
        """Everything that was made and is there still."""
        return [name for kind in ("Deployment", "Secret", "Pod", "Job") for name in self.cluster.names(kind)]


@pytest.fixture
def root() -> Generator[Path]:
    with state_folder() as folder:
        yield folder


@pytest_asyncio.fixture
async def at(root: Path) -> AsyncGenerator[At]:
    cluster, blobs = TargetCluster(root=root / "cluster"), MemoryBlobStore()
    async with serving_targets(cluster) as url:
        yield At(cluster, url, root, blobs, deployments_in(url, root, blobs))


def look(kind: str, target: str) -> HealthCheckSpec:
    return HealthCheckSpec.model_validate({"name": "seen", "kind": kind, "target": target, "threshold": 0})


def name_of(placed: Placed) -> str:
    return f"fleet-{ENV}-{placed.key[:12]}"


@pytest.mark.rule("LC-43", "LC-49")
async def test_service_moves_with_what_runs_and_stays_where_a_new_one_fails(at: At) -> None:
    first, second = await at.placed(app(said="first")), await at.placed(app(said="second"))
    broken = await at.placed(app(starts=False))
    assert at.said() is None
    assert (await at.now.deploy(broken)).status == "failed"
    assert at.said() is None
    await at.now.deploy(first)
    assert at.said() == "first"
    assert (await at.now.deploy(broken)).status == "failed"
    assert at.said() == "first"
    await eventually(lambda: at.cluster.names("Deployment") == [name_of(first)])

    await at.now.deploy(second)
    assert at.said() == "second"
    await eventually(lambda: at.cluster.running() == [name_of(second)])

    await at.now.roll_back(ENV, failed=second.key, told="user:ana did")
    assert at.said() == "first"
    assert (await at.now.occupancy(ENV)).ended == EndedRevision(second.key, "user:ana did")
    await eventually(lambda: at.cluster.names("Deployment") == [name_of(first)])
    await at.now.stop(ENV)
    assert at.said() is None
    await eventually(lambda: at.left() == [])
    assert at.cluster.names("Service") == [SERVICE], "it says who ended what ran there"


async def test_environment_that_nobody_ended_by_hand_leaves_nothing_when_it_is_stopped(at: At) -> None:
    await at.now.deploy(await at.placed(app()))
    for _ in range(2):
        assert await at.now.stop(ENV) == Standing("nothing")
    await eventually(lambda: at.left() == [])
    assert at.cluster.names("Service") == []


@pytest.mark.rule("RT-65", "LC-49")
async def test_pod_of_a_program_has_no_right_beyond_itself_and_only_reads_its_tree(at: At) -> None:
    placed = await at.placed(app(), env={"PRICE": "$(PORT) $5"}, place={"node_labels": {"pool": "apps"}})
    await at.now.deploy(placed)
    found = at.cluster.object_at("Deployment", NAMESPACE, name_of(placed))
    pod = found["spec"]["template"]["spec"]
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert (labels["swefleet.io/story"], labels["swefleet.io/revision"]) == ("st-deployed", placed.key[:40])
    assert labels["swefleet.io/tree"] == placed.tree.removeprefix("sha256:")[:40]
    assert found["metadata"]["annotations"]["swefleet.io/tree-digest"] == placed.tree
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["nodeSelector"] == {"pool": "apps"}
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["image"] == IMAGE
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"] == container["resources"]["requests"]
    (workspace,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "workspace")
    assert workspace["readOnly"] is True
    seen = await at.now.sample(ENV, look("command", "python -c 'import os; raise SystemExit(os.environ[\"PRICE\"])'"))
    assert (seen.value, seen.detail) == (1, "exit code 1: $(PORT) $5")


async def test_command_looks_from_a_pod_of_its_own_and_leaves_nothing(at: At) -> None:
    placed = await at.placed(app(said="hello"))
    await at.now.deploy(placed)
    code = 'import os, urllib.request as u; print(u.urlopen(os.environ["TARGET_URL"]).read())'
    assert (await at.now.sample(ENV, look("command", f"python -c '{code}'"))).detail == "exit code 0: b'hello'"
    assert "No such file" in (await at.now.sample(ENV, look("command", "no-such-program"))).detail
    await eventually(lambda: at.cluster.names("Job") == [])
    assert at.cluster.running() == [name_of(placed)]


async def test_lines_of_the_log_are_counted_once(at: At) -> None:
    await at.now.deploy(await at.placed(app(errors=3)))
    check = look("log_pattern", "^ERROR number")
    assert [(await at.now.sample(ENV, check)).value for _ in range(2)] == [3, 0]


async def test_program_that_ends_later_is_started_again_and_what_is_seen_says_so(at: At) -> None:
    await at.now.deploy(await at.placed(app(dies="/die")))
    assert (await at.now.sample(ENV, look("http", "/die"))).value == 1

    async with asyncio.timeout(50):
        while (await at.now.sample(ENV, look("http", "/healthz"))).value != 0:
            await asyncio.sleep(0.05)
    assert (await at.now.occupancy(ENV)).answers


# Crashes and lost answers.


class Crash(BaseException):
    """The process ended here."""


class DyingApi(ClusterApi):
    """An API whose caller dies after so many writes; nothing that it asks from then on happens."""

    def __init__(self, at: At, writes: int) -> None:
        client = cluster_client(at.url, token_file=at.root / "token", ca_file=None, pause_s=0.01, place="kubernetes")
        super().__init__(client, NAMESPACE, poll_s=0.02)
        self.left = writes

    async def _ask(self, method: Any, path: str, **given: Any) -> Any:
        if self.left <= 0:
            raise Crash
        answer = await super()._ask(method, path, **given)
        self.left -= method != "GET"
        if self.left <= 0:
            raise Crash
        return answer


@pytest.mark.rule("LC-62", "RC-52")
async def test_crash_after_any_write_leaves_one_that_people_reach_and_again_gives_one(at: At) -> None:
    first = await at.placed(app(said="first"))
    await at.now.deploy(first)
    crashes = 0
    for writes in range(1, 20):
        second = await at.placed(app(said="second"))
        dying = DyingApi(at, writes)
        try:
            await KubernetesDeployments(lambda _, api=dying: api, at.blobs, SystemClock()).deploy(second)
        except Crash:
            crashes += 1
        else:
            break
        assert at.said() in ("first", "second"), f"nobody answers after {writes} writes"

        again = at.again()
        assert await again.deploy(second) == Standing("running", key=second.key, previous=first.key)
        assert at.said() == "second"
        found, both = name_of(second), sorted([name_of(first), name_of(second)])
        await eventually(lambda found=found: at.cluster.running() == [found])
        assert at.cluster.names("Deployment") == both
        await again.roll_back(ENV, failed=second.key)
        await eventually(lambda: at.cluster.names("Deployment") == [name_of(first)])
    assert crashes >= 6, "each write of a deployment is one that a crash may follow"


async def test_what_a_crash_left_is_taken_away_when_the_fleet_starts_again(at: At) -> None:
    first, second = await at.placed(app(said="first")), await at.placed(app(said="second"))
    await at.now.deploy(first)
    dying = DyingApi(at, 4)
    with pytest.raises(Crash):
        await KubernetesDeployments(lambda _: dying, at.blobs, SystemClock()).deploy(second)
    assert name_of(second) in at.cluster.names("Deployment")

    await at.again(declared=(ENV,)).keep()

    await eventually(lambda: at.cluster.names("Deployment") == [name_of(first)])
    assert at.said() == "first"


async def test_answers_that_are_lost_or_busy_change_nothing_twice(at: At) -> None:
    at.cluster.lost += [("PATCH", "/deployments/"), ("PATCH", "/secrets/"), ("PATCH", "/services/")]
    at.cluster.faults += [
        ("GET", "/pods", status(429, "TooManyRequests", "wait")),
        ("GET", "/services/", status(503, "ServiceUnavailable", "wait")),
    ]
    placed = await at.placed(app(said="first"))
    assert await at.now.deploy(placed) == Standing("running", key=placed.key)
    assert (at.cluster.lost, at.cluster.faults) == ([], [])
    assert at.cluster.running() == [name_of(placed)]
    assert at.said() == "first"


async def test_service_that_the_cluster_changed_meanwhile_is_written_over_its_newer_version(at: At) -> None:
    first, second = await at.placed(app(said="first")), await at.placed(app(said="second"))
    await at.now.deploy(first)
    at.cluster.before.append(
        ("PATCH", "/services/", lambda: at.cluster.change("Service", NAMESPACE, SERVICE, status={"loadBalancer": {}}))
    )
    await at.now.deploy(second)
    assert at.cluster.before == []
    assert at.said() == "second"


async def test_service_that_something_holds_says_nothing_and_is_waited_for(at: At) -> None:
    first = await at.placed(app(said="first"))
    await at.now.deploy(first)
    at.cluster.lingering.add("Service")
    assert await at.now.stop(ENV) == Standing("nothing")
    assert await at.now.standing(ENV) == Standing("nothing")
    assert at.cluster.names("Service") == [SERVICE], "a balancer holds it"
    deploying = asyncio.create_task(at.now.deploy(await at.placed(app(said="second"))))
    await eventually(lambda: len(at.cluster.running()) == 1)
    at.cluster.remove("Service", NAMESPACE, SERVICE)
    assert (await deploying).status == "running"
    assert at.said() == "second"


async def test_deployment_by_somebody_else_meanwhile_is_left_alone(at: At) -> None:
    first, second, other = [await at.placed(app(said=said)) for said in ("first", "second", "other")]
    await at.now.deploy(first)
    kept = at.cluster.object_at("Service", NAMESPACE, SERVICE)["metadata"]["annotations"]["swefleet.io/kept"]
    theirs = kept.replace(first.key, other.key)

    def change() -> None:
        place = at.cluster.object_at("Service", NAMESPACE, SERVICE)["metadata"]
        at.cluster.change(
            "Service", NAMESPACE, SERVICE, metadata={**place, "annotations": {"swefleet.io/kept": theirs}}
        )

    at.cluster.before.append(("PATCH", "/services/", change))
    with pytest.raises(SandboxUnavailable, match="changed by somebody else meanwhile"):
        await at.now.deploy(second)
    assert (await at.now.standing(ENV)).key == other.key
    await eventually(lambda: at.cluster.names("Deployment") == [name_of(first)])


# What the cluster refuses.


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]},
            "ImagePullBackOff: not found",
        ),
        (
            {"initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "denied"}}}]},
            "ImagePullBackOff: denied",
        ),
        (
            {"initContainerStatuses": [{"state": {"terminated": {"exitCode": 127, "reason": "StartError"}}}]},
            "the tree cannot be put in place: StartError",
        ),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no cpu"}
                ]
            },
            "Unschedulable: Unschedulable: no cpu",
        ),
        ({"phase": "Pending"}, "no pod started within 5 s: the cluster says not why"),
    ],
)
async def test_what_the_cluster_cannot_start_is_said_in_its_words_and_is_no_failed_deployment(
    at: At, said: dict[str, Any], why: str
) -> None:
    first = await at.placed(app(said="first"))
    await at.now.deploy(first)
    at.cluster.scripts.append({"phase": "Pending", **said})
    with pytest.raises(SandboxUnavailable, match=why):
        await at.now.deploy(await at.placed(app(), place={"start_s": 5}, ready={"within_s": 600}))
    assert at.said() == "first"
    await eventually(lambda: at.cluster.names("Deployment") == [name_of(first)])


async def test_program_that_cannot_be_started_or_never_answers_is_a_failed_deployment(at: At) -> None:
    ended = {"terminated": {"exitCode": 128, "reason": "StartError", "message": 'exec: "shop": not found'}}
    at.cluster.scripts.append({"containerStatuses": [{"state": ended}]})
    failed = await at.now.deploy(await at.placed(app()))
    assert failed == Standing("failed", detail='the program cannot be started: StartError: exec: "shop": not found')
    waits = b"import time; print('waiting', flush=True); time.sleep(100)"
    failed = await at.now.deploy(await at.placed(waits, ready={"within_s": 1}))
    assert failed.detail == "not ready within 1 s: no answer below 400 from /: waiting"
    large = await at.placed(app(said=secrets.token_hex(1 << 20)), place={"max_tree_bytes": 1 << 20})
    assert "raise kubernetes.max_tree_bytes of deploy target preview" in (await at.now.deploy(large)).detail
    await eventually(lambda: at.left() == [])


@pytest.mark.parametrize(
    ("method", "part", "reply", "why"),
    [
        ("PATCH", "/deployments/", status(403, "Forbidden", "may not"), "403 to PATCH deployments/.*may not; give the"),
        ("PATCH", "/deployments/", status(401, "Unauthorized", "who"), "renew the token of kubernetes.token_file"),
        ("PATCH", "/secrets/", status(422, "Invalid", "planted-value"), "422 to PATCH secrets/.*no message is shown"),
        ("PATCH", "/services/", status(422, "Invalid", "no port"), "no port; the cluster's admission refuses it"),
        ("PATCH", "/deployments/", status(409, "Conflict", "busy"), "somebody else is just changing it"),
        ("GET", "/pods", status(404, "NotFound", "no namespace"), "create the namespace previews"),
    ],
)
async def test_refusal_of_the_server_is_said_and_nothing_is_left(
    at: At, method: str, part: str, reply: Reply, why: str
) -> None:
    at.cluster.faults.append((method, part, reply))
    with pytest.raises(SandboxUnavailable, match=why) as refused:
        await at.now.deploy(await at.placed(app()))
    assert "planted-value" not in str(refused.value)
    assert at.cluster.faults == []
    await eventually(lambda: at.left() == [])


async def test_quota_is_said_and_server_that_answers_nothing_is_given_up(at: At) -> None:
    at.cluster.quota = "exceeded quota: pods=0"
    with pytest.raises(SandboxUnavailable, match="FailedCreate: exceeded quota"):
        await at.now.deploy(await at.placed(app()))
    at.cluster.faults += [("GET", "/services/", Reply(is_lost=True))] * 4
    with pytest.raises(SandboxUnavailable, match="the Kubernetes API cannot be used"):
        await at.now.standing(ENV)


async def test_service_of_somebody_else_or_without_sense_is_refused(at: At) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/services/{SERVICE}"
    theirs: dict[str, Any] = {"kind": "Service", "metadata": {"name": SERVICE, "uid": "u", "resourceVersion": "7"}}
    at.cluster.objects[path] = theirs
    with pytest.raises(StoreUnavailable, match="was made by somebody else"):
        await at.now.deploy(await at.placed(app()))
    theirs["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "swe-fleet"}
    with pytest.raises(StoreUnavailable, match="does not say what runs in preview"):
        await at.now.occupancy(ENV)
    assert at.left() == []


async def test_way_in_from_outside_comes_and_goes_with_the_target_that_declares_it(at: At) -> None:
    rule = {"host": "shop.example", "class_name": "nginx", "tls_secret": "shop-tls"}
    first, second = await at.placed(app(), place={"ingress": rule}), await at.placed(app())
    await at.now.deploy(first)
    found = at.cluster.object_at("Ingress", NAMESPACE, SERVICE)["spec"]
    assert found["tls"] == [{"hosts": ["shop.example"], "secretName": "shop-tls"}]
    assert found["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] == SERVICE
    await at.now.deploy(second)
    assert at.cluster.names("Ingress") == []
    await at.now.roll_back(ENV, failed=second.key)
    assert at.cluster.names("Ingress") == [SERVICE]
    await at.now.stop(ENV, told="user:ana stopped it")
    assert at.cluster.names("Ingress") == []
    assert await at.now.occupancy(ENV) == Occupancy(ended=EndedRevision(first.key, "user:ana stopped it"))


# Secrets.


def vault(value: str, *, ops: frozenset[str] = frozenset({"start"})) -> RunSecrets:
    source, known = MemorySecrets("vault"), KnownSecrets()
    source.put("db-password", value)
    grant = SecretGrant(secret="db-password", roles=frozenset({"devops"}), tool="environment", ops=ops)
    broker = SecretBroker(
        {"db-password": source, "other": source},
        SecretPolicy(grants=(grant, grant.model_copy(update={"secret": "other"}))),
        clock=SystemClock(),
        record=MemoryAccessTrail().record,
        known_secrets=known,
    )
    return RunSecrets(broker, known)


@pytest.mark.rule("RT-65", "LC-49")
async def test_secret_is_in_one_object_alone_and_in_nothing_that_is_shown(at: At) -> None:
    value = f"planted-{secrets.token_hex(16)}"
    now = at.again(secrets=vault(value))
    program = app(prints="DB_PASSWORD", well=False, errors=1)
    placed = await at.placed(program, secrets={"DB_PASSWORD": "secret://db-password"})
    await now.deploy(placed)
    encoded = base64.b64encode(value.encode()).decode()
    holding = [r for r in at.cluster.requests if value.encode() in r.body or encoded.encode() in r.body]
    assert {r.path.rpartition("/")[2] for r in holding} == {f"{name_of(placed)}-values"}
    there = [o["metadata"]["name"] for o in at.cluster.objects.values() if encoded in json.dumps(o)]
    assert there == [f"{name_of(placed)}-values"]

    code = 'import os; raise SystemExit(os.environ["DB_PASSWORD"])'
    looks = [look("log_pattern", "ERROR for"), look("http", "/healthz"), look("command", f"python -c '{code}'")]
    details = [(await now.sample(ENV, one)).detail for one in looks]
    assert all("[REDACTED" in detail and value not in detail for detail in details), details
    # Whoever comes after does not know the value that the program was given, and shows nothing of what it says.
    details = [(await at.again(secrets=vault("another-value")).sample(ENV, one)).detail for one in looks]
    assert all("is not shown" in detail and "REDACTED" not in detail for detail in details), details
    failed = await now.deploy(replace(await at.placed(app(prints="DB_PASSWORD", starts=False)), target=placed.target))
    assert "no database" in failed.detail
    assert not any(value[n : n + 8] in failed.detail for n in range(len(value) - 7))


@pytest.mark.rule("LC-43")
async def test_program_that_begins_again_before_its_log_is_read_is_heard_all_the_same(at: At) -> None:
    at.cluster.is_again_at_log = True
    failed = await at.now.deploy(await at.placed(app(starts=False)))
    assert failed.detail.endswith("\nERROR no database"), failed.detail


@pytest.mark.rule("RT-65")
async def test_secret_that_it_may_not_have_or_nobody_has_changes_nothing(at: At) -> None:
    placed = await at.placed(app(), secrets={"DB_PASSWORD": "secret://db-password"})
    for given, error in ((vault("value-of-it", ops=frozenset({"rollback"})), PolicyDenied), (None, PolicyDenied)):
        with pytest.raises(error):
            await at.again(secrets=given).deploy(placed)
    with pytest.raises(NotFound):
        await at.again(secrets=vault("value-of-it")).deploy(await at.placed(app(), secrets={"X": "secret://other"}))
    assert at.left() == []


# Rights.


def right_of(request: Request) -> tuple[str, str, str, str]:
    """Group, resource, verb and name that the API server decides a request by."""
    path = request.path.replace("/api/v1/", "/apis//v1/")
    _, _, group, _, _, _, resource, *rest = path.split("/")
    name, *below = rest or [""]
    verbs = {"GET": "get" if name else "list", "PATCH": "patch", "DELETE": "delete", "POST": "create"}
    return group, f"{resource}/{below[0]}" if below else resource, verbs[request.method], name


@pytest.mark.rule("RT-65", "LC-49")
async def test_rendered_role_grants_what_deploying_asks_and_nothing_that_it_does_not(at: At) -> None:
    rule = {"host": "shop.example", "class_name": "nginx", "tls_secret": "shop-tls"}
    first, second = [await at.placed(app(), place={"ingress": rule}) for _ in range(2)]
    await at.now.deploy(first)
    await at.now.deploy(second)
    for kind, target in (("http", "/"), ("log_pattern", "x"), ("command", "true")):
        await at.now.sample(ENV, look(kind, target))
    await at.now.roll_back(ENV, failed=second.key)
    await at.now.stop(ENV)

    asked = {right_of(request) for request in at.cluster.requests}
    smoke = look("command", "true")
    target = first.target.model_copy(
        update={"monitor": first.target.monitor.model_copy(update={"checks": (*first.target.monitor.checks, smoke)})}
    )
    granted = {
        (group, resource, verb, name)
        for rule in target_rights([target])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
    named = {(group, resource) for group, resource, _, name in granted if name}
    needed = {(g, r, v, n if (g, r) in named else "") for g, r, v, n in asked}
    # What is applied and not there yet is made.
    needed |= {(g, r, "create", "") for g, r, v, _ in needed if v == "patch"}
    assert granted == needed
    without = {resource for r in target_rights([target_of(ENV)]) for resource in r["resources"]}
    assert not without & {"jobs", "ingresses"}


# Kinds side by side.


@pytest.mark.rule("LC-49")
async def test_each_environment_is_kept_by_its_kind() -> None:
    class Kept(MemoryDeployments):
        kept = 0

        async def keep(self) -> None:
            self.kept += 1

    process, cluster = Kept(), Kept()
    routed = RoutedDeployments(
        {"process": process, "kubernetes": cluster}, {"preview": "kubernetes", "stage": "process"}
    )
    await routed.keep()
    assert (process.kept, cluster.kept) == (1, 1)
    tree = await put_tree(MemoryBlobStore(), {"app.py": b""})
    for name in ("preview", "stage"):
        placed = Placed(RunKey(secrets.token_hex(32)), StoryId("st-deployed"), tree, "python", target_of(name))
        assert (await routed.deploy(placed)).key == placed.key
        assert (await routed.standing(name)).key == placed.key
        assert (await routed.sample(name, look("http", "/"))).value == 0
        assert (await routed.occupancy(name)).running == placed
        assert await routed.roll_back(name, failed=placed.key) == Standing("nothing")
        assert await routed.stop(name) == Standing("nothing")
    assert [len(kind.deployed) for kind in (process, cluster)] == [1, 1]
    with pytest.raises(ConfigError, match="preview is of kind kubernetes, which nothing here keeps"):
        await RoutedDeployments({"process": process}, {"preview": "kubernetes"}).standing("preview")
