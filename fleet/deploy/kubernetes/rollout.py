"""Rolls a revision out in a cluster, from its first object until it is ready. What is left of others is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleet.deploy.kubernetes.api import ClusterApi
from fleet.deploy.kubernetes.objects import Revision, environment_labels, revision_labels, revision_name, scaled
from fleet.deploy.kubernetes.pods import PodSeen, is_rolled_out, pods_seen, quota_refusal
from fleet.deploy.local.environments import Kept
from fleet.deploy.port import Placed
from fleet.kernel.clock import Clock
from fleet.kernel.errors import SandboxUnavailable

PROGRAM = "program"
"""Container of the program."""
_GONE_S = 15
"""What was deleted may take so long until it is gone."""
_HOMELESS_S = 30
"""A pod that no node takes is given up after so many seconds: a node may be added."""
_TAIL_LINES, _TAIL_CHARS = 20, 600


class Rollout:
    """One attempt to let a revision run.

    Args:
        plain: what the program said, as it may be shown.
    """

    def __init__(self, api: ClusterApi, clock: Clock, revision: Revision, plain: Callable[[str], str]) -> None:
        self._api, self._clock, self._revision, self._plain = api, clock, revision, plain
        self._target = revision.placed.target
        place = self._target.kubernetes
        assert place is not None, "the settings refuse a target of kind kubernetes without one"
        self._place = place
        self._begun_ms = clock.monotonic_ms()
        self._started_ms: int | None = None

    async def ready(self) -> str | None:
        """None once all its pods are ready; else why its program does not become it.

        Raises SandboxUnavailable where the cluster is what fails: no node, no image, a quota. Nothing of the revision
        is left then, nor when this is cancelled.
        """
        try:
            await self._put()
            why = await self._waited()
        except BaseException:
            with contextlib.suppress(SandboxUnavailable):
                await drop(self._api, self._revision.placed)
            raise
        if why is not None:
            await drop(self._api, self._revision.placed)
        return why

    async def _put(self) -> None:
        there = await self._after_leftovers()
        if there is None:
            # Without pods first: its Secrets need an owner, and pods need their Secrets.
            there = await self._api.apply(self._revision.deployment(replicas=0))
        for secret in self._revision.secrets(str(there["metadata"]["uid"])):
            await self._api.apply(secret)
        await self._api.apply(self._revision.deployment(replicas=self._place.replicas))

    async def _after_leftovers(self) -> dict[str, Any] | None:
        """The Deployment that an earlier attempt made; one that is on its way out is waited for."""
        while (there := await self._api.get("Deployment", self._revision.name)) is not None:
            if not there["metadata"].get("deletionTimestamp"):
                return there
            if self._since(self._begun_ms) > _GONE_S:
                raise self._unavailable(f"an earlier one does not go away within {_GONE_S} s: delete it")
            await self._clock.sleep(self._api.poll_s)
        return None

    async def _waited(self) -> str | None:
        self._begun_ms = self._clock.monotonic_ms()
        labels = revision_labels(self._target.environment, self._revision.placed.key)
        while True:
            deployment = await self._api.get("Deployment", self._revision.name)
            if deployment is None or deployment["metadata"].get("deletionTimestamp"):
                raise self._unavailable("somebody deleted it while it was being started")
            if is_rolled_out(deployment, self._place.replicas):
                return None
            pods = pods_seen(await self._api.find("Pod", labels))
            why = await self._broken(pods) or await self._late(pods)
            if why is not None:
                return why
            self._require_possible(deployment, pods)
            await self._clock.sleep(self._api.poll_s)

    async def _broken(self, pods: Sequence[PodSeen]) -> str | None:
        for pod in pods:
            if pod.broken:
                return f"the program cannot be started: {self._plain(pod.broken)}"
            if pod.has_ended:
                # One that began again since it was looked at has an empty log, and what it said is the log before.
                said = await self._said(pod, previous=pod.is_again) or await self._said(pod, previous=True)
                return f"the program ended with {pod.exit_code}: {said}"
        return None

    async def _late(self, pods: Sequence[PodSeen]) -> str | None:
        if self._started_ms is None and any(pod.has_started for pod in pods):
            self._started_ms = self._clock.monotonic_ms()
        within_s = self._target.ready.within_s
        if self._started_ms is None or self._since(self._started_ms) <= within_s:
            return None
        held = next((pod for pod in pods if not pod.is_ready), None)
        said = await self._said(held, previous=False) if held else "its pods are gone"
        return f"not ready within {within_s} s: no answer below 400 from {self._target.ready.path}: {said}"

    def _require_possible(self, deployment: Mapping[str, Any], pods: Sequence[PodSeen]) -> None:
        if refused := quota_refusal(deployment) or next((pod.refused for pod in pods if pod.refused), ""):
            raise self._unavailable(refused)
        homeless = next((pod.homeless for pod in pods if pod.homeless), "")
        if homeless and self._since(self._begun_ms) > min(_HOMELESS_S, self._place.start_s):
            raise self._unavailable(homeless, missing="capacity")
        if self._started_ms is None and self._since(self._begun_ms) > self._place.start_s:
            waits = homeless or next((pod.waiting for pod in pods if pod.waiting), "the cluster says not why")
            raise self._unavailable(f"no pod started within {self._place.start_s} s: {waits}")

    async def _said(self, pod: PodSeen, *, previous: bool) -> str:
        log = await self._api.log(pod.name, container=PROGRAM, tail=_TAIL_LINES, previous=previous)
        return self._plain(log.text)[-_TAIL_CHARS:]

    def _since(self, then_ms: int) -> float:
        return (self._clock.monotonic_ms() - then_ms) / 1000

    def _unavailable(self, why: str, *, missing: str = "kubernetes") -> SandboxUnavailable:
        name, namespace = self._revision.name, self._api.namespace
        return SandboxUnavailable(f"Deployment {name} in namespace {namespace}: {why}", missing=missing)


async def drop(api: ClusterApi, placed: Placed) -> None:
    """Its Deployment is on its way out, with all that it owns."""
    await api.delete("Deployment", revision_name(placed))


async def tidy(api: ClusterApi, environment: str, kept: Kept) -> None:
    """Nothing is left but what runs, and what a rollback goes back to, without pods."""
    current, previous = (revision_name(one) if one else None for one in (kept.current, kept.previous))
    for deployment in await api.find("Deployment", environment_labels(environment)):
        name = str(deployment["metadata"]["name"])
        if name == current:
            continue
        if name != previous:
            await api.delete("Deployment", name)
        elif deployment["spec"].get("replicas") != 0:
            await api.merge("Deployment", name, scaled(0))
