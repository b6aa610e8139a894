"""A cluster as it is: apply it, say how it is, scale its groups, delete it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Literal, NamedTuple

from cluster.kuberay.api import KubeApi, Reference, reference_of
from cluster.kuberay.conditions import Finding, finding_of
from cluster.kuberay.identity import CLUSTER_LABEL, Manifest
from cluster.kuberay.settings import ClusterSettings
from fleet.kernel.errors import ConflictError, InvalidInput, NotFound, StoreUnavailable

Progress = Callable[[str], None]
_RAY_KINDS = ("RayService", "RayCluster")
_SHARED = frozenset({"Namespace"})
"""They may hold what is not ours, and are never deleted."""
_EXAMPLE = "registry.example/"
_GROUPS = ".workerGroupSpecs"
_REPLACE_TRIES = 8


class Change(NamedTuple):
    """What became of one object."""

    object: str
    outcome: Literal["created", "changed", "unchanged", "checked", "deleted", "gone", "kept"]


def ray_reference(cluster: ClusterSettings) -> Reference:
    """The RayService or RayCluster of the cluster."""
    return Reference("RayService" if cluster.kind == "service" else "RayCluster", cluster.namespace, cluster.name)


async def apply_cluster(
    api: KubeApi,
    cluster: ClusterSettings,
    manifests: Sequence[Manifest],
    *,
    progress: Progress,
    force: bool = False,
    dry_run: bool = False,
) -> list[Change]:
    """Every object is as rendered, in order; a repeat goes on where the last call stopped.

    Raises:
        InvalidInput: an image is one of the examples, or the server refuses an object.
        ConflictError: an object of that name is not of this cluster, or somebody else set its fields; nothing is taken
            over unless `force`.
        NotFound, PolicyDenied, StoreUnavailable: as `KubeApi`.
    """
    _refuse_examples(cluster)
    await _refuse_other_kind(api, cluster)
    found: list[Change] = []
    absent: set[str] = set()
    for manifest in manifests:
        reference = reference_of(manifest)
        before = await api.get(reference)
        if reference.kind == "Namespace" and before is None:
            absent.add(reference.name)
        if before is not None and not force:
            _refuse_foreign(cluster, reference, before)
        try:
            after = await _applied(api, manifest, before, force=force, dry_run=dry_run)
        except NotFound as error:
            # In a dry run the namespace that comes first was not made, so the server cannot look at what lies in it.
            if not (dry_run and reference.namespace in absent) or error.details["is_unknown_kind"]:
                raise
            after = manifest
        change = Change(str(reference), _outcome(before, after, dry_run=dry_run))
        progress(f"{change.object} {change.outcome}")
        found.append(change)
    return found


async def _applied(
    api: KubeApi, manifest: Manifest, before: Manifest | None, *, force: bool, dry_run: bool
) -> Manifest:
    wanted = _keeping_scale(manifest, before) if before and manifest["kind"] in _RAY_KINDS else manifest
    try:
        return await api.apply(wanted, force=force, dry_run=dry_run)
    except ConflictError as error:
        # The groups are one field for the API server. The autoscaler and `scale` write it too, and what they decided
        # is in `wanted`; a person's change of anything else is never taken over.
        if not error.details["fields"] or not all(f.endswith(_GROUPS) for f in error.details["fields"]):
            raise
    return await api.apply(wanted, force=True, dry_run=dry_run)


def _keeping_scale(manifest: Manifest, before: Manifest) -> Manifest:
    """The manifest with as many workers as the autoscaler decided, within what the file now allows."""
    wanted = copy.deepcopy(manifest)
    spec, running = (_ray_spec(one) for one in (wanted, before))
    if not spec.get("enableInTreeAutoscaling"):
        return wanted
    there = {group["groupName"]: group for group in running.get("workerGroupSpecs", ())}
    for group in spec["workerGroupSpecs"]:
        replicas = there.get(group["groupName"], group).get("replicas", group["replicas"])
        group["replicas"] = min(max(int(replicas), group["minReplicas"]), group["maxReplicas"])
    return wanted


def _ray_spec(manifest: Manifest) -> Manifest:
    return manifest["spec"].get("rayClusterConfig", manifest["spec"])


def _outcome(
    before: Manifest | None, after: Manifest, *, dry_run: bool
) -> Literal["created", "changed", "unchanged", "checked"]:
    if dry_run:
        return "checked"
    if before is None:
        return "created"
    same = before["metadata"].get("resourceVersion") == after["metadata"].get("resourceVersion")
    return "unchanged" if same else "changed"


def _refuse_examples(cluster: ClusterSettings) -> None:
    images = cluster.images.model_dump(exclude={"pull_secrets"})
    stores = {name: getattr(getattr(cluster, name), "image", None) for name in ("log", "cache", "gcs", "graph")}
    wrong = [name for name, image in {**images, **stores}.items() if image and image.startswith(_EXAMPLE)]
    if wrong:
        raise InvalidInput(
            f"the images of {', '.join(wrong)} are examples that nobody can pull; build yours with `make images` and "
            "name them by digest in the file of the cluster",
            field="images",
            images=wrong,
        )


async def _refuse_other_kind(api: KubeApi, cluster: ClusterSettings) -> None:
    reference = ray_reference(cluster)
    other = next(kind for kind in _RAY_KINDS if kind != reference.kind)
    if (there := await api.get(reference._replace(kind=other))) and _is_ours(cluster, there):
        raise ConflictError(
            f"{other} {cluster.namespace}/{cluster.name} is there, and the file now says kind: {cluster.kind}; both "
            "would run the fleet, so delete the old one first (`fleet cluster delete` with the old file)",
            object=str(reference),
        )


def _is_ours(cluster: ClusterSettings, manifest: Manifest) -> bool:
    return (manifest["metadata"].get("labels") or {}).get(CLUSTER_LABEL) == cluster.name


def _refuse_foreign(cluster: ClusterSettings, reference: Reference, there: Manifest) -> None:
    # Each namespace comes with this account, and somebody else may have made the namespace for us.
    is_given = reference.kind in _SHARED or (reference.kind, reference.name) == ("ServiceAccount", "default")
    if not is_given and not _is_ours(cluster, there):
        raise ConflictError(
            f"{reference} is there and does not belong to cluster {cluster.name}; choose another name or namespace, or "
            "take it over with --force",
            object=str(reference),
        )


async def status_of(api: KubeApi, manifests: Sequence[Manifest]) -> list[Finding]:
    """How every object is, in the order in which they were made."""
    references = [reference_of(manifest) for manifest in manifests]
    found: list[Finding] = []
    for reference in references:
        there = await api.get(reference)
        found.append(finding_of(str(reference), there and {"kind": reference.kind, **there}))
    return found


async def wait_until_ready(api: KubeApi, cluster: ClusterSettings, *, timeout_s: float, progress: Progress) -> Finding:
    """The finding of the Ray object once it is ready; what it says meanwhile goes to `progress`.

    Raises:
        StoreUnavailable: it is not ready in time; says what it said last.
    """
    reference, last = ray_reference(cluster), ""
    finding = Finding(str(reference), "waiting", "the operator has not said anything yet")
    try:
        async with asyncio.timeout(timeout_s), aclosing(api.watch(reference)) as changes:
            async for manifest in changes:
                finding = finding_of(str(reference), manifest and {"kind": reference.kind, **manifest})
                if finding.words != last:
                    last = finding.words
                    progress(f"{finding.object} {finding.state}: {finding.words}")
                if finding.state == "ready":
                    return finding
    except TimeoutError:
        pass
    raise StoreUnavailable(
        f"{reference} is not ready after {timeout_s:g} s ({finding.state}: {finding.words}); see `fleet cluster "
        f"status` and `kubectl -n {cluster.namespace} get events`",
        object=str(reference),
    )


async def scale_group(api: KubeApi, cluster: ClusterSettings, group: str, replicas: int) -> int:
    """The group has so many replicas; how many it had. With an autoscaler they are its least, which it keeps.

    Raises:
        InvalidInput: there is no such group, or the number is outside of what the file allows.
        NotFound: the cluster is not there.
        ConflictError: it changes so quickly that no write of ours came through.
    """
    settings = next((g for g in cluster.workers if g.name == group), None)
    if settings is None:
        known = [g.name for g in cluster.workers]
        raise InvalidInput(f"there is no group {group!r}; known: {', '.join(known)}", field="group", allowed=known)
    most = settings.most if cluster.autoscaler else 1_000
    if not 0 <= replicas <= most:
        raise InvalidInput(
            f"group {group} can have 0 to {most} replicas, not {replicas}; raise max_replicas in the file of the "
            "cluster and apply it",
            field="replicas",
        )
    reference, conflict = ray_reference(cluster), None
    for _ in range(_REPLACE_TRIES):
        there = await api.get(reference)
        if there is None:
            raise NotFound(f"{reference} is not there; make it with `fleet cluster apply`", object=str(reference))
        found, before = _scaled(
            {"kind": reference.kind, **there}, group, replicas, is_automatic=bool(cluster.autoscaler)
        )
        try:
            await api.replace(found)
        except ConflictError as error:
            # The operator and the autoscaler write the same object: read it again, and change what is there now.
            conflict = error
            continue
        return before
    assert conflict is not None
    raise conflict


def _scaled(manifest: Manifest, group: str, replicas: int, *, is_automatic: bool) -> tuple[Manifest, int]:
    for there in _ray_spec(manifest)["workerGroupSpecs"]:
        if there["groupName"] == group:
            before = int(there.get("replicas", 0))
            there["replicas"] = replicas
            there["minReplicas"] = replicas
            if not is_automatic:
                there["maxReplicas"] = max(replicas, 1)
            return manifest, before
    raise NotFound(f"the running cluster has no group {group!r}; bring it up to date with `fleet cluster apply`")


async def delete_cluster(
    api: KubeApi,
    cluster: ClusterSettings,
    manifests: Sequence[Manifest],
    *,
    progress: Progress,
    with_data: bool = False,
    timeout_s: float = 300,
) -> list[Change]:
    """Everything of the cluster is gone but namespaces, Secrets and, unless `with_data`, volumes.

    Raises:
        ConflictError: an object of that name is not of this cluster; what came before it is deleted.
        StoreUnavailable: the Ray object is not gone in time: something holds it.
    """
    found: list[Change] = []
    for manifest in reversed(manifests):
        reference = reference_of(manifest)
        is_volume = reference.kind == "PersistentVolumeClaim"
        if reference.kind in _SHARED or reference.name == "default" or (is_volume and not with_data):
            found.append(Change(str(reference), "kept"))
            continue
        found.append(await _delete(api, cluster, reference))
        if reference.kind in _RAY_KINDS:
            # Its pods write to the stores until they are gone, so those end after it.
            await _wait_until_gone(api, reference, timeout_s)
        progress(f"{found[-1].object} {found[-1].outcome}")
    if with_data:
        for claim in await api.find("PersistentVolumeClaim", cluster.namespace, {CLUSTER_LABEL: cluster.name}):
            found.append(await _delete(api, cluster, reference_of(claim)))
            progress(f"{found[-1].object} {found[-1].outcome}")
    return found


async def _delete(api: KubeApi, cluster: ClusterSettings, reference: Reference) -> Change:
    there = await api.get(reference)
    if there is None:
        return Change(str(reference), "gone")
    if not _is_ours(cluster, there):
        raise ConflictError(
            f"{reference} does not belong to cluster {cluster.name} and stays; name another cluster",
            object=str(reference),
        )
    is_deleted = await api.delete(reference, uid=_uid(there))
    return Change(str(reference), "deleted" if is_deleted else "gone")


def _uid(manifest: dict[str, Any]) -> str:
    return str(manifest["metadata"]["uid"])


async def _wait_until_gone(api: KubeApi, reference: Reference, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s), aclosing(api.watch(reference)) as changes:
            async for manifest in changes:
                if manifest is None:
                    return
    except TimeoutError:
        raise StoreUnavailable(
            f"{reference} is not gone after {timeout_s:g} s; see its finalizers and the log of the KubeRay operator, "
            "then repeat the command",
            object=str(reference),
        ) from None
