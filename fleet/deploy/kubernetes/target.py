"""The environments of a Kubernetes cluster: what runs in each, what ran before, without a file of our own (LC-49).

Invariant: the Service of an environment names what runs there and what a rollback goes back to, and leads to the
former. It is written once the new program is ready, in one write and over the version that was read: whoever comes
after a crash finds the one or the other, never nothing and never two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Protocol

from fleet.deploy.kubernetes.api import ClusterApi, Conflict
from fleet.deploy.kubernetes.looks import ClusterLooks
from fleet.deploy.kubernetes.objects import Revision, ingress, kept_in, service
from fleet.deploy.kubernetes.rollout import Rollout, drop, tidy
from fleet.deploy.local.environments import Kept, key_of, standing_of
from fleet.deploy.local.instance import GRANTEE
from fleet.deploy.port import Deployments, EndedRevision, Occupancy, Placed, Standing
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ConfigError, FleetError, InvalidInput, SandboxUnavailable
from fleet.kernel.ids import RunKey
from fleet.policy.deploy import HealthCheckSpec, HealthSample
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.backends.kubernetes.inputs import pack_tree
from fleet.sandbox.service.runs import RunSecrets
from fleet.secrets.service import KnownSecrets
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree

_LOG = logging.getLogger("fleet.deployments")
_WRITES = 5
"""The cluster writes into a Service too; so often its newer version is read before it is written again."""
_GONE_S = 15
_NOT_SHOWN = "(what it said is not shown: the fleet was started again since, and does not know its secrets any more)"


class KubernetesDeployments:
    """Implements the port Deployments with one Deployment for each revision and one Service for each environment.

    Args:
        apis: of an environment, where in which cluster it is; may raise ConfigError.
        declared: the environments that are; what a crash left in them is taken away by `keep`.
        secrets: gives programs those that their targets name; None refuses targets that name any.
    """

    def __init__(
        self,
        apis: Callable[[str], ClusterApi],
        blobs: BlobStore,
        clock: Clock,
        *,
        declared: Collection[str] = (),
        secrets: RunSecrets | None = None,
    ) -> None:
        self._apis, self._blobs, self._clock = apis, blobs, clock
        self._secrets = secrets or RunSecrets(None, KnownSecrets())
        self._declared = frozenset(declared)
        self._changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._given: set[RunKey] = set()
        """Deployments whose secrets this process handed over, and so knows."""
        self._looks = ClusterLooks(clock, self._plain)

    async def keep(self) -> None:
        """What a process that died left half done is taken away; what runs is the cluster's to keep."""
        for name in sorted(self._declared):
            async with self._changing[name]:
                try:
                    api = self._apis(name)
                    await tidy(api, name, await self._kept(api, name))
                except FleetError as error:
                    _LOG.warning("environment %s cannot be looked after now: %s", name, error.message)

    async def deploy(self, placed: Placed) -> Standing:
        """See the port."""
        name = placed.target.environment
        async with self._changing[name]:
            api = self._apis(name)
            kept = await self._kept(api, name)
            if key_of(kept.current) == placed.key:
                await self._settle(api, name, kept)
                return standing_of(kept)
            why = await self._taken_over(api, kept, replace(kept, current=placed, previous=kept.current))
            if why is not None:
                return Standing("failed", key=key_of(kept.current), previous=key_of(kept.previous), detail=why)
            return Standing("running", key=placed.key, previous=key_of(kept.current))

    async def standing(self, environment: str) -> Standing:
        """See the port."""
        # Whoever asks whether a deployment happened that is just being made has to wait for it.
        async with self._changing[environment]:
            return standing_of(await self._kept(self._apis(environment), environment))

    async def occupancy(self, environment: str) -> Occupancy:
        """See the port."""
        api = self._apis(environment)
        kept = await self._kept(api, environment)
        current = kept.current
        return Occupancy(
            running=current,
            since_ms=kept.since_ms if current else 0,
            answers=current is not None and await self._looks.answers(api, current),
            previous=key_of(kept.previous),
            ended=kept.ended,
        )

    async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
        """See the port."""
        async with self._changing[environment]:
            api = self._apis(environment)
            kept = await self._kept(api, environment)
            if key_of(kept.current) != failed:
                await self._settle(api, environment, kept)
                return standing_of(kept)
            ended = kept.ended_by(told)
            if kept.previous is None:
                await self._emptied(api, environment, kept, ended)
                return Standing("nothing")
            why = await self._taken_over(api, kept, Kept(kept.previous, ended=ended))
            if why is not None:
                return Standing("failed", key=failed, previous=kept.previous.key, detail=why)
            return Standing("running", key=kept.previous.key)

    async def sample(self, environment: str, check: HealthCheckSpec) -> HealthSample:
        """See the port."""
        api = self._apis(environment)
        current = (await self._kept(api, environment)).current
        if current is None:
            return HealthSample(value=float("inf"), detail=f"nothing runs in {environment}")
        return await self._looks.take(api, current, check)

    async def stop(self, environment: str, *, only: RunKey | None = None, told: str = "") -> Standing:
        """See the port."""
        async with self._changing[environment]:
            api = self._apis(environment)
            kept = await self._kept(api, environment)
            if kept.current is None:
                await tidy(api, environment, kept)
            elif only in (None, kept.current.key):
                await self._emptied(api, environment, kept, kept.ended_by(told))
                return Standing("nothing")
            return standing_of(kept)

    # What is kept.

    async def _kept(self, api: ClusterApi, environment: str) -> Kept:
        return kept_in(await api.get("Service", f"fleet-{environment}"), environment)

    async def _service(self, api: ClusterApi, environment: str) -> dict[str, Any] | None:
        """The Service, once an earlier one is gone: a balancer outside of the cluster may hold it for a while."""
        until = self._clock.monotonic_ms() + 1000 * _GONE_S
        while (service := await api.get("Service", f"fleet-{environment}")) is not None:
            if not service["metadata"].get("deletionTimestamp"):
                return service
            if self._clock.monotonic_ms() >= until:
                raise SandboxUnavailable(
                    f"Service fleet-{environment} does not go away within {_GONE_S} s: see what holds it",
                    missing="kubernetes",
                )
            await self._clock.sleep(api.poll_s)
        return None

    async def _switch(self, api: ClusterApi, environment: str, before: Kept, after: Kept) -> None:
        """The Service leads to what runs after this, and says so. Raises SandboxUnavailable when it cannot be."""
        for _ in range(_WRITES):
            present = await self._service(api, environment)
            now = kept_in(present, environment)
            if now == after:
                return  # the answer to an earlier write was lost
            if now != before:
                break
            version = str(present["metadata"].get("resourceVersion", "")) if present else None
            with contextlib.suppress(Conflict):
                await api.apply(service(environment, after, namespace=api.namespace, version=version))
                return
        raise SandboxUnavailable(
            f"what runs in {environment} was changed by somebody else meanwhile: ask again", missing="kubernetes"
        )

    async def _taken_over(self, api: ClusterApi, before: Kept, after: Kept) -> str | None:
        """None once the new one runs in place of what ran before. Else why not, and all is as it was."""
        placed = after.current
        assert placed is not None
        # Before anything is changed: what it may not have is no fault of the program.
        values = await self._values(placed)
        try:
            revision = await self._revision(api, placed, values)
        except InvalidInput as error:
            return error.message
        why = await Rollout(api, self._clock, revision, lambda text: self._plain(placed, text)).ready()
        if why is not None:
            return why
        after, name = replace(after, since_ms=self._clock.now_ms()), placed.target.environment
        try:
            await self._switch(api, name, before, after)
        except FleetError:
            await self._unless_it_runs(api, placed)
            raise
        await self._settle(api, name, after, also=before)
        return None

    async def _unless_it_runs(self, api: ClusterApi, placed: Placed) -> None:
        """It is taken away, unless people may reach it: a write whose answer was lost may have happened."""
        with contextlib.suppress(FleetError):
            kept = await self._kept(api, placed.target.environment)
            if key_of(kept.current) != placed.key:
                await drop(api, placed)

    async def _settle(self, api: ClusterApi, environment: str, kept: Kept, *, also: Kept | None = None) -> None:
        """The way in from outside fits what runs, and nothing else is left: what follows the write of the Service."""
        entrance = ingress(environment, kept, namespace=api.namespace)
        if entrance is not None:
            await api.apply(entrance)
        elif also is not None and ingress(environment, also, namespace=api.namespace) is not None:
            await api.delete("Ingress", f"fleet-{environment}")
        await tidy(api, environment, kept)
        self._looks.forget({one.key for one in (kept.current, kept.previous) if one})

    async def _emptied(self, api: ClusterApi, environment: str, kept: Kept, ended: EndedRevision | None) -> None:
        after = Kept(ended=ended)
        if ended is None:
            await api.delete("Service", f"fleet-{environment}")
        else:
            await self._switch(api, environment, kept, after)
        await self._settle(api, environment, after, also=kept)

    # What runs.

    async def _revision(self, api: ClusterApi, placed: Placed, values: dict[str, str]) -> Revision:
        place = placed.target.kubernetes
        if place is None:
            raise ConfigError(
                f"{placed.target.environment} is in a cluster now, and what is to run there was deployed to the node: "
                "deploy it anew"
            )
        tree = await read_tree(self._blobs, placed.tree)
        setting = f"kubernetes.max_tree_bytes of deploy target {placed.target.environment}"
        packed = await pack_tree(tree, self._blobs, max_bytes=place.max_tree_bytes, setting=setting)
        return Revision(placed, api.namespace, packed, values)

    async def _values(self, placed: Placed) -> dict[str, str]:
        target = placed.target
        if not target.secrets:
            return {}
        spec = RunSpec(argv=target.argv, env=dict(target.secrets), grantee=GRANTEE)
        self._secrets.check(spec)
        given = await self._secrets.delivery(spec)
        self._given.add(placed.key)
        return {name: value.reveal() for name, value in given.secret_env.items()} if given else {}

    def _plain(self, placed: Placed, text: str) -> str:
        """What its program said, as it may be shown: without the values that it was given."""
        if placed.target.secrets and placed.key not in self._given:
            return _NOT_SHOWN
        return self._secrets.plain(text)


class KeptDeployments(Deployments, Protocol):
    """Deployments that somebody has to look after."""

    async def keep(self) -> None:
        """What has to run runs, until this is cancelled or there is nothing to look after."""
        ...


class RoutedDeployments:
    """Implements the port Deployments by handing each call on.

    Args:
        kinds: who keeps the environments of a kind of target.
        kind_of: of every declared environment; one that is declared no more is a process, as far as those are kept.
    """

    def __init__(self, kinds: Mapping[str, KeptDeployments], kind_of: Mapping[str, str]) -> None:
        self._kinds, self._kind_of = dict(kinds), dict(kind_of)

    async def keep(self) -> None:
        """All kinds are looked after, until this is cancelled."""
        async with asyncio.TaskGroup() as group:
            for one in self._kinds.values():
                group.create_task(one.keep())

    async def deploy(self, placed: Placed) -> Standing:
        """See the port."""
        return await self._of(placed.target.environment).deploy(placed)

    async def standing(self, environment: str) -> Standing:
        """See the port."""
        return await self._of(environment).standing(environment)

    async def occupancy(self, environment: str) -> Occupancy:
        """See the port."""
        return await self._of(environment).occupancy(environment)

    async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
        """See the port."""
        return await self._of(environment).roll_back(environment, failed=failed, told=told)

    async def sample(self, environment: str, check: HealthCheckSpec) -> HealthSample:
        """See the port."""
        return await self._of(environment).sample(environment, check)

    async def stop(self, environment: str, *, only: RunKey | None = None, told: str = "") -> Standing:
        """See the port."""
        return await self._of(environment).stop(environment, only=only, told=told)

    def _of(self, environment: str) -> Deployments:
        kind = self._kind_of.get(environment, "process")
        deployments = self._kinds.get(kind)
        if deployments is None:
            raise ConfigError(
                f"environment {environment} is of kind {kind}, which nothing here keeps: declare it under "
                "deploy.targets, or for kind process set sandbox.backend to bubblewrap",
                environment=environment,
            )
        return deployments
