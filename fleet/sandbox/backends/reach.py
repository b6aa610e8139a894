"""What a run has beside its command: a way out to listed hosts, and side services; both only when it asks for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass
from pathlib import Path

from fleet.policy.runs.services import ServicesConfig
from fleet.policy.runs.spec import RunReason, RunResult, RunSpec
from fleet.sandbox.backends.services import FOLDER_INSIDE, ServicesGate, bundled_programs, open_services, planned
from fleet.sandbox.egress.proxy import EgressGate, EgressSettings, open_egress, system_resolver
from fleet.sandbox.egress.rules import HostRules
from fleet.trees.port import BlobStore

_ENDED_ITSELF: frozenset[RunReason] = frozenset({"ok", "exit_nonzero", "signal", "config", "pids_limit"})


@dataclass(frozen=True, slots=True)
class RunReach:
    """One run's part: what its launch needs, and what its result has to say of it."""

    egress: EgressGate | None = None
    services: ServicesGate | None = None
    binds: tuple[tuple[Path, str], ...] = ()

    @property
    def prefix(self) -> tuple[str, ...]:
        """Launchers before the command, each runs the next: first the way out, then the services."""
        return tuple(part for gate in (self.egress, self.services) if gate for part in gate.prefix)

    @property
    def inherited(self) -> tuple[int, ...]:
        """Descriptors that have to be open inside."""
        return tuple(part for gate in (self.egress, self.services) if gate for part in gate.inherited)

    async def completed(self, result: RunResult, blobs: BlobStore, *, forms: Collection[str] = ()) -> RunResult:
        """The result with what went through the proxy, the services' logs, and their failure as its reason (RC-103)."""
        changes: dict[str, object] = {}
        limits = dict(result.limits)
        is_natural = result.reason in _ENDED_ITSELF
        if self.egress is not None:
            changes["egress"] = self.egress.decisions
            limits["network"] = "namespace+proxy"
            if is_natural and not self.egress.is_open:
                changes |= {"status": "error", "reason": "sandbox_lost"}
        if self.services is not None:
            changes["artifacts"] = (*result.artifacts, *await self.services.store_logs(blobs, forms=forms))
            failure = self.services.failure
            if failure is not None and is_natural:
                limits["service"] = f"{failure.service}: {failure.why}"
                code = result.exit_code if failure.started else None
                changes |= {"status": "error", "reason": "service_unavailable", "exit_code": code}
        return result.model_copy(update={**changes, "limits": limits}) if changes else result


class Reach:
    """Opens a `RunReach` per run.

    Args:
        root: folder for the servers that the fleet brings itself.
        egress: how proxies behave. Default: the machine's resolver, public addresses alone.
        recipes: kinds of side services; none by default.
    """

    def __init__(self, root: Path, *, egress: EgressSettings | None = None, recipes: ServicesConfig | None = None):
        self._root = root
        self._egress = egress or EgressSettings(resolve=system_resolver())
        self._recipes = recipes or ServicesConfig()

    def check(self, spec: RunSpec) -> None:
        """Return when the run may have what it asks for.

        Raises:
            InvalidInput: a host pattern that is none; services that contradict each other.
            PolicyDenied: a kind of service that there is not, or that the role may not use (RC-101).
        """
        HostRules.parse(spec.hosts)
        planned(spec, self._recipes)

    @contextlib.asynccontextmanager
    async def open(self, spec: RunSpec) -> AsyncGenerator[RunReach]:
        """What this run has; with the block every connection and descriptor of it ends.

        Raises:
            SandboxUnavailable: the server that the fleet brings itself is not installed.
        """
        plans = planned(spec, self._recipes)
        binds = ((bundled_programs(self._root), FOLDER_INSIDE),) if any(p.bundled for p in plans) else ()
        async with contextlib.AsyncExitStack() as stack:
            egress = services = None
            if spec.hosts:
                egress = await stack.enter_async_context(open_egress(HostRules.parse(spec.hosts), self._egress))
            if plans:
                services = await stack.enter_async_context(open_services(plans))
            yield RunReach(egress, services, binds)
