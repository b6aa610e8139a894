"""Apply, status, scale and delete against an API server over HTTP, with conflicts, refusals and broken connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from cluster.kuberay.api import KubeApi, Reference, reference_of
from cluster.kuberay.deploy import apply_cluster, delete_cluster, scale_group, status_of, wait_until_ready
from cluster.kuberay.settings import ClusterSettings
from fleet.kernel.errors import ConflictError, FleetError, InvalidInput, NotFound, PolicyDenied, StoreUnavailable
from fleet.web.kubernetes import Access
from tests.support.cluster_manifests import cluster_named, rendered
from tests.support.crds import schemas
from tests.support.http_stand_in import Reply
from tests.support.kubernetes_objects import TOKEN, ObjectServer, serving_objects, status

NAMESPACE, RAY = "swe-fleet", ("RayService", "swe-fleet", "fleet")
READY = {"conditions": [{"type": "Ready", "status": "True"}], "activeServiceStatus": {"applicationStatuses": {
    "fleet": {"status": "RUNNING"}}}}  # fmt: skip


def real(name: str = "small", **changed: Any) -> ClusterSettings:
    """A cluster with images that could be pulled."""
    text = cluster_named(name, **changed).model_dump_json().replace("registry.example/", "ghcr.io/")
    return ClusterSettings.model_validate_json(text)


SMALL = real()


@contextlib.asynccontextmanager
async def asked(server: ObjectServer, *, token: str = TOKEN) -> AsyncIterator[KubeApi]:
    """The API of that server."""
    async with serving_objects(server) as url:
        yield KubeApi(Access(url, token=lambda: token), pause_s=0.001)


async def applied(server: ObjectServer, cluster: ClusterSettings = SMALL, **options: Any) -> list[str]:
    """What became of each object."""
    async with asked(server) as api:
        changes = await apply_cluster(api, cluster, rendered(cluster), progress=lambda line: None, **options)
    return [change.outcome for change in changes]


def paths(server: ObjectServer, method: str) -> list[str]:
    """Of the requests with that method."""
    return [request.path for request in server.requests if request.method == method]


async def test_apply_makes_every_object_in_order() -> None:
    server = ObjectServer()

    outcomes = await applied(server)

    manifests = rendered(SMALL)
    assert outcomes == ["created"] * len(manifests)
    assert paths(server, "PATCH") == [reference_of(manifest).path for manifest in manifests]
    assert server.object_at(*RAY)["spec"] == manifests[-1]["spec"]


async def test_apply_is_server_side_and_strict() -> None:
    server = ObjectServer()

    await applied(server)

    patches = [request for request in server.requests if request.method == "PATCH"]
    assert {r.headers["content-type"] for r in patches} == {"application/apply-patch+yaml"}
    assert {r.query["fieldManager"] for r in patches} == {"swe-fleet"}
    assert {(r.query["force"], r.query["fieldValidation"]) for r in patches} == {("false", "Strict")}


async def test_second_apply_changes_nothing() -> None:
    server = ObjectServer()
    await applied(server)

    assert set(await applied(server)) == {"unchanged"}


async def test_apply_changes_only_what_differs() -> None:
    server = ObjectServer()
    await applied(server)
    more = real(workers=tuple(w.model_copy(update={"replicas": 2}) for w in SMALL.workers))

    outcomes = await applied(server, more)

    assert [o for o in outcomes if o != "unchanged"] == ["changed"]
    assert server.object_at(*RAY)["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] == 2


async def test_dry_run_is_checked_by_the_server_and_leaves_nothing() -> None:
    server = ObjectServer()

    assert set(await applied(server, dry_run=True)) == {"checked"}
    assert server.objects == {}
    assert {r.query["dryRun"] for r in server.requests if r.method == "PATCH"} == {"All"}


async def test_apply_leaves_what_others_added() -> None:
    server = ObjectServer()
    await applied(server)
    server.change(*RAY, status=READY)

    await applied(server)

    assert server.object_at(*RAY)["status"] == READY


async def test_field_that_somebody_else_set_is_a_conflict_that_names_it_until_it_is_forced() -> None:
    server = ObjectServer()
    await applied(server)
    spec = {**server.object_at("StatefulSet", NAMESPACE, "fleet-log")["spec"], "replicas": 3}
    server.change("StatefulSet", NAMESPACE, "fleet-log", manager="kubectl-edit", spec=spec)

    with pytest.raises(ConflictError, match=r"StatefulSet swe-fleet/fleet-log.*--force") as caught:
        await applied(server)

    assert caught.value.details["fields"] == [".spec.replicas"]
    assert "kubectl-edit" in caught.value.details["causes"][0]
    assert server.object_at("StatefulSet", NAMESPACE, "fleet-log")["spec"]["replicas"] == 3
    await applied(server, force=True)
    assert server.object_at("StatefulSet", NAMESPACE, "fleet-log")["spec"]["replicas"] == 1


def groups_of(server: ObjectServer, kind: str = "RayService") -> dict[str, dict[str, Any]]:
    """The groups of the running cluster by name."""
    spec = server.object_at(kind, NAMESPACE, "fleet")["spec"]
    return {g["groupName"]: g for g in spec.get("rayClusterConfig", spec)["workerGroupSpecs"]}


async def test_apply_keeps_what_the_autoscaler_decided_within_the_limits_of_the_file() -> None:
    server, cluster = ObjectServer(), real("gpu", kind="cluster")
    await applied(server, cluster)
    spec = json.loads(json.dumps(server.object_at("RayCluster", NAMESPACE, "fleet")["spec"]))
    for group, replicas in zip(spec["workerGroupSpecs"], (5, 9, 2), strict=True):
        group["replicas"] = replicas
    server.change("RayCluster", NAMESPACE, "fleet", manager="autoscaler", spec=spec)

    await applied(server, cluster)

    assert {n: g["replicas"] for n, g in groups_of(server, "RayCluster").items()} == {
        "agents": 5,
        "sandbox": 4,
        "gpu": 2,
    }


async def test_apply_after_scale_sets_what_the_file_says() -> None:
    server = ObjectServer()
    await applied(server)
    async with asked(server) as api:
        assert await scale_group(api, SMALL, "agents", 4) == 1
    assert groups_of(server)["agents"]["replicas"] == 4

    await applied(server)

    assert groups_of(server)["agents"]["replicas"] == 1


async def test_object_of_somebody_else_is_not_taken_over() -> None:
    server = ObjectServer()
    await applied(server)
    place = {**server.object_at("Service", NAMESPACE, "fleet-log")["metadata"], "labels": {"app": "theirs"}}
    server.change("Service", NAMESPACE, "fleet-log", metadata=place)

    with pytest.raises(ConflictError, match="does not belong to cluster fleet"):
        await applied(server)


async def test_account_that_each_namespace_has_is_taken_over() -> None:
    server = ObjectServer()
    await applied(server)
    place = {**server.object_at("ServiceAccount", "swe-fleet-runs", "default")["metadata"], "labels": {}}
    server.change("ServiceAccount", "swe-fleet-runs", "default", metadata=place)

    await applied(server)

    assert server.object_at("ServiceAccount", "swe-fleet-runs", "default")["automountServiceAccountToken"] is False


async def test_example_images_are_refused_before_anything_is_asked() -> None:
    server = ObjectServer()

    with pytest.raises(InvalidInput, match="head, worker, toolbox, log, cache, gcs, graph are examples") as caught:
        await applied(server, cluster_named("small"))

    assert "head" in caught.value.details["images"]
    assert server.requests == []


async def test_service_and_cluster_of_one_name_do_not_run_beside_each_other() -> None:
    server = ObjectServer()
    await applied(server)

    with pytest.raises(ConflictError, match="the file now says kind: cluster"):
        await applied(server, real(kind="cluster"))


async def test_missing_operator_is_named() -> None:
    server = ObjectServer(has_kuberay=False)

    with pytest.raises(NotFound, match="install the KubeRay operator"):
        await applied(server)


async def test_refused_object_names_the_field() -> None:
    schemas()
    server = ObjectServer()
    bad = rendered(SMALL)
    bad[-1]["spec"]["rayClusterConfig"]["rayVersionn"] = "2.60.0"

    async with asked(server) as api:
        with pytest.raises(InvalidInput, match=r"RayService swe-fleet/fleet: 422 .*rayVersionn: is unknown"):
            await apply_cluster(api, SMALL, bad, progress=lambda line: None)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (status(403, "Forbidden", 'cannot patch resource "configmaps"'), PolicyDenied, "ask for the rights"),
        (status(401, "Unauthorized", "Unauthorized"), PolicyDenied, "log in to the cluster again"),
        (status(413, "TooLarge", "too large"), InvalidInput, "413 too large"),
        (Reply(400, raw=b"<html>"), InvalidInput, "status 400"),
    ],
)
async def test_refusal_of_the_server_is_told_in_words(reply: Reply, error: type[FleetError], words: str) -> None:
    server = ObjectServer(faults=[("PATCH", "/configmaps/", reply)])

    with pytest.raises(error, match=words):
        await applied(server)

    assert server.faults_met == 1


async def test_wrong_token_is_told() -> None:
    async with asked(ObjectServer(), token="wrong") as api:
        with pytest.raises(PolicyDenied, match="does not know this user"):
            await api.get(Reference(*RAY))


@pytest.mark.parametrize(
    "reply",
    [
        status(429, "TooManyRequests", "slow down", **{"retry-after": "0"}),
        status(429, "TooManyRequests", "slow down"),
        status(500, "InternalError", "etcdserver: leader changed"),
        status(503, "ServiceUnavailable", "not yet"),
        Reply(is_lost=True),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_busy_server_is_asked_again(method: str, reply: Reply) -> None:
    server = ObjectServer(faults=[(method, "/rayservices/", reply)] * 3)

    outcomes = await applied(server)

    assert server.faults_met == 3
    assert set(outcomes) == {"created"}


async def test_server_that_stays_busy_is_given_up_with_its_words() -> None:
    server = ObjectServer(faults=[("PATCH", "/namespaces/", status(429, "TooManyRequests", "slow down"))] * 6)

    with pytest.raises(StoreUnavailable, match=r"answered 429 slow down.*repeat the command"):
        await applied(server)

    assert server.faults_met == 6


async def test_server_that_is_not_there_is_told_without_the_token() -> None:
    api = KubeApi(Access("http://127.0.0.1:9", token=lambda: "hunter2"), pause_s=0.001)
    with pytest.raises(StoreUnavailable, match="cannot be asked \\(NewConnectionError\\)") as caught:
        await api.get(Reference(*RAY))

    assert "hunter2" not in repr(caught.value)
    assert "hunter2" not in repr(Access("https://x", token=lambda: "hunter2"))


async def test_apply_that_was_cut_goes_on_where_it_stopped() -> None:
    server = ObjectServer(faults=[("PATCH", "/statefulsets/fleet-gcs", status(403, "Forbidden", "no"))])
    with pytest.raises(PolicyDenied):
        await applied(server)
    done = len(server.objects)

    outcomes = await applied(server)

    assert 0 < done < len(outcomes)
    assert outcomes == ["unchanged"] * done + ["created"] * (len(outcomes) - done)


# Waiting until it is ready.


async def waited(server: ObjectServer, *, within_s: float = 5, then: Callable[[], None] | None = None) -> list[str]:
    """What was told until it was ready; `then` happens once something was told and every fault was met."""
    told: list[str] = []

    async def go_on() -> None:
        await until(lambda: bool(told) and not server.faults)
        if then:
            then()

    async with asked(server) as api, asyncio.TaskGroup() as group:
        group.create_task(go_on())
        await wait_until_ready(api, SMALL, timeout_s=within_s, progress=told.append)
    return told


async def test_wait_tells_each_change_until_it_is_ready() -> None:
    server = ObjectServer()
    await applied(server)

    told = await waited(server, then=lambda: server.change(*RAY, status=READY))

    assert told == [
        "RayService swe-fleet/fleet waiting: the operator has not said anything yet",
        "RayService swe-fleet/fleet ready: fleet RUNNING",
    ]


async def until(holds: Callable[[], bool]) -> None:
    """Until it holds."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is polled has no event
            await asyncio.sleep(0.002)


def error_event(code: int) -> Reply:
    """A watch that says that it went wrong."""
    event = {"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": "Expired"}}
    return Reply(raw=json.dumps(event).encode() + b"\n")


@pytest.mark.parametrize(
    "broken",
    [
        Reply(raw=b""),
        Reply(raw=b'{"type": "MODIFIED", "obj'),
        Reply(raw=b'["odd"]\n'),
        Reply(raw=b'{"type": "BOOKMARK", "object": {}}\n'),
        error_event(410),
        status(410, "Expired", "too old resource version"),
        status(500, "InternalError", "no"),
        Reply(is_lost=True),
    ],
)
async def test_broken_watch_is_started_again_from_a_new_list(broken: Reply) -> None:
    server = ObjectServer()
    await applied(server)
    server.faults = [("WATCH", "/rayservices", broken)] * 3

    told = await waited(server, then=lambda: server.change(*RAY, status=READY))

    assert server.faults_met == 3
    assert told[-1].endswith("ready: fleet RUNNING")


async def test_change_between_list_and_watch_is_seen() -> None:
    server = ObjectServer()
    await applied(server)
    server.before = [("WATCH", "/rayservices", lambda: server.change(*RAY, status=READY))]

    assert (await waited(server))[-1].endswith("ready: fleet RUNNING")


async def test_wait_that_takes_too_long_says_what_was_said_last() -> None:
    server = ObjectServer()
    await applied(server)
    apps = {"fleet": {"status": "DEPLOY_FAILED", "message": "No module named serve_apps"}}
    server.change(*RAY, status={"activeServiceStatus": {"applicationStatuses": apps}})

    async with asked(server) as api:
        with pytest.raises(StoreUnavailable, match=r"not ready after 0.1 s \(failed: .*No module named serve_apps"):
            await wait_until_ready(api, SMALL, timeout_s=0.1, progress=lambda line: None)


# Status.


async def test_status_names_what_is_missing_waits_and_is_ready() -> None:
    server, manifests = ObjectServer(), rendered(SMALL)
    async with asked(server) as api:
        assert {f.state for f in await status_of(api, manifests)} == {"missing"}
        await apply_cluster(api, SMALL, manifests, progress=lambda line: None)
        server.change("StatefulSet", NAMESPACE, "fleet-log", status={"readyReplicas": 1})
        server.change("PersistentVolumeClaim", NAMESPACE, "fleet-home", status={"phase": "Bound"})
        server.change(*RAY, status=READY)
        found = {f.object: f for f in await status_of(api, manifests)}

    assert found["RayService swe-fleet/fleet"].state == "ready"
    assert found["StatefulSet swe-fleet/fleet-log"].words == "1 of 1 pods"
    assert found["StatefulSet swe-fleet/fleet-gcs"].state == "waiting"
    assert found["PersistentVolumeClaim swe-fleet/fleet-home"].state == "ready"
    assert found["Namespace swe-fleet"].state == "ready"


# Scale.


async def scaled(server: ObjectServer, cluster: ClusterSettings, group: str, replicas: int) -> int:
    async with asked(server) as api:
        return await scale_group(api, cluster, group, replicas)


async def test_scale_comes_through_while_others_write_the_same_object() -> None:
    server = ObjectServer()
    await applied(server)
    server.before = [("PUT", "/rayservices/", lambda n=n: server.change(*RAY, status={"n": n})) for n in range(3)]

    assert await scaled(server, SMALL, "agents", 3) == 1

    assert server.before == []
    assert groups_of(server)["agents"]["replicas"] == 3
    assert groups_of(server)["sandbox"]["replicas"] == 1
    assert server.object_at(*RAY)["status"] == {"n": 2}


async def test_scale_gives_up_when_every_write_conflicts() -> None:
    server = ObjectServer()
    await applied(server)
    server.faults = [("PUT", "/rayservices/", status(409, "Conflict", "modified"))] * 8

    with pytest.raises(ConflictError):
        await scaled(server, SMALL, "agents", 3)

    assert server.faults_met == 8


async def test_scale_with_an_autoscaler_sets_what_it_keeps() -> None:
    server, cluster = ObjectServer(), real("gpu")
    await applied(server, cluster)

    await scaled(server, cluster, "agents", 5)

    agents = groups_of(server)["agents"]
    assert (agents["replicas"], agents["minReplicas"], agents["maxReplicas"]) == (5, 5, 8)


@pytest.mark.parametrize(
    ("group", "replicas", "error", "words"),
    [
        ("agent", 2, InvalidInput, "known: agents, sandbox, gpu"),
        ("agents", 9, InvalidInput, "0 to 8 replicas, not 9; raise max_replicas"),
    ],
)
async def test_scale_that_the_file_does_not_allow_is_refused(
    group: str, replicas: int, error: type[FleetError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await scaled(ObjectServer(), real("gpu"), group, replicas)


async def test_scale_of_a_cluster_that_is_not_there_is_refused() -> None:
    with pytest.raises(NotFound, match="make it with `fleet cluster apply`"):
        await scaled(ObjectServer(), SMALL, "agents", 2)


async def test_scale_of_a_group_that_does_not_run_yet_is_refused() -> None:
    server = ObjectServer()
    await applied(server)
    more = real(workers=(*SMALL.workers, SMALL.workers[0].model_copy(update={"name": "more"})))

    with pytest.raises(NotFound, match="has no group 'more'"):
        await scaled(server, more, "more", 2)


# Delete.


async def deleted(server: ObjectServer, cluster: ClusterSettings = SMALL, **options: Any) -> dict[str, str]:
    async with asked(server) as api:
        changes = await delete_cluster(api, cluster, rendered(cluster), progress=lambda line: None, **options)
    return {change.object: change.outcome for change in changes}


async def test_delete_leaves_namespaces_and_volumes() -> None:
    server = ObjectServer()
    await applied(server)

    outcomes = await deleted(server)

    assert server.kinds() == [
        "Namespace/swe-fleet", "Namespace/swe-fleet-runs", "PersistentVolumeClaim/fleet-home", "ServiceAccount/default",
    ]  # fmt: skip
    assert outcomes["RayService swe-fleet/fleet"] == "deleted"
    assert outcomes["PersistentVolumeClaim swe-fleet/fleet-home"] == "kept"


async def test_delete_ends_what_writes_before_what_is_written_to() -> None:
    server = ObjectServer(lingering={"RayService"})
    await applied(server)
    server.requests.clear()

    async with asyncio.TaskGroup() as group:
        group.create_task(deleted(server))
        await until(lambda: bool(server.object_at(*RAY)["metadata"].get("deletionTimestamp")))
        assert not [path for path in paths(server, "DELETE") if "statefulsets" in path]
        server.remove(*RAY)

    order = [path.rpartition("/")[2] for path in paths(server, "DELETE")]
    assert order.index("fleet") < order.index("fleet-log")
    assert "StatefulSet/fleet-log" not in server.kinds()


async def test_delete_with_data_removes_the_volumes_of_this_cluster_alone() -> None:
    server = ObjectServer()
    await applied(server)
    manifest = rendered(SMALL)[-1]
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {}}
    async with asked(server) as api:
        for name, owner in (("data-fleet-log-0", "fleet"), ("data-theirs-0", "theirs")):
            labels = {**manifest["metadata"]["labels"], "swefleet.io/cluster": owner}
            await api.apply({**claim, "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels}})

    outcomes = await deleted(server, with_data=True)

    assert outcomes["PersistentVolumeClaim swe-fleet/data-fleet-log-0"] == "deleted"
    assert [k for k in server.kinds() if k.startswith("Persistent")] == ["PersistentVolumeClaim/data-theirs-0"]


async def test_delete_again_finds_nothing_and_is_fine() -> None:
    assert set((await deleted(ObjectServer())).values()) == {"gone", "kept"}


async def test_delete_refuses_what_is_not_of_this_cluster() -> None:
    server = ObjectServer()
    await applied(server)
    place = {**server.object_at(*RAY)["metadata"], "labels": {}}
    server.change(*RAY, metadata=place)

    with pytest.raises(ConflictError, match="does not belong to cluster fleet and stays"):
        await deleted(server)

    assert "RayService/fleet" in server.kinds()


async def test_delete_does_not_end_an_object_that_was_made_anew_meanwhile() -> None:
    server = ObjectServer()
    await applied(server)
    server.faults = [("DELETE", "/poddisruptionbudgets/fleet-agents", status(409, "Conflict", "the UID differs"))]

    outcomes = await deleted(server)

    assert server.faults_met == 1
    assert outcomes["PodDisruptionBudget swe-fleet/fleet-agents"] == "gone"


async def test_delete_repeats_a_request_whose_answer_was_lost() -> None:
    server = ObjectServer()
    await applied(server)
    server.faults = [
        ("DELETE", "/services/fleet-log", Reply(is_lost=True)),
        ("DELETE", "/services/", status(429, "x", "y")),
    ]

    await deleted(server)

    assert server.faults_met == 2
    assert "Service/fleet-log" not in server.kinds()


async def test_object_that_something_holds_is_told_and_the_stores_stay() -> None:
    server = ObjectServer(lingering={"RayService"})
    await applied(server)

    with pytest.raises(StoreUnavailable, match=r"not gone after 0.1 s; see its finalizers"):
        await deleted(server, timeout_s=0.1)

    assert "StatefulSet/fleet-log" in server.kinds()
