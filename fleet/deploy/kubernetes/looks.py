"""Looks at a deployed program in a cluster: through the API server's proxy, its log, and commands in Jobs (LC-49)."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable
from math import inf

from fleet.deploy.kubernetes.api import ClusterApi
from fleet.deploy.kubernetes.objects import LOOK_LABEL, LOOK_S, look, revision_labels, revision_name
from fleet.deploy.kubernetes.pods import PodSeen, pods_seen
from fleet.deploy.kubernetes.rollout import PROGRAM
from fleet.deploy.port import Placed
from fleet.kernel.clock import Clock
from fleet.kernel.errors import SandboxUnavailable
from fleet.kernel.ids import RunKey
from fleet.policy.deploy import HealthCheckSpec, HealthSample
from fleet.web.answers import Unanswered

_HTTP_S = 10.0
_SOON_S = 5.0
"""Whoever only shows how things are waits so long for an answer."""
_LOOK_START_S = 60
_LINES = 2_000
_SAID_CHARS = 300
_SERIES = r"^%s(?:\{[^\n]*\})?[ \t]+([-+]?[0-9][-+0-9.eE]*)"


class ClusterLooks:
    """Takes looks, and remembers which lines of a log were seen.

    Args:
        plain: what a program said, as it may be shown.
    """

    def __init__(self, clock: Clock, plain: Callable[[Placed, str], str]) -> None:
        self._clock, self._plain = clock, plain
        self._seen: dict[tuple[RunKey, str, str], str] = {}
        """Deployment, check and pod -> the time of the newest line that was counted."""

    async def take(self, api: ClusterApi, placed: Placed, check: HealthCheckSpec) -> HealthSample:
        """One look of the check at what was placed."""
        match check.kind:
            case "http":
                return await self._http(api, placed, check.target)
            case "metric":
                return await self._metric(api, placed, check.target)
            case "log_pattern":
                return await self._log(api, placed, check)
            case "command":
                return await self._command(api, placed, check)

    async def answers(self, api: ClusterApi, placed: Placed) -> bool:
        """Whether it answers the path of its target's `ready` now."""
        with contextlib.suppress(Unanswered):
            status, _ = await api.ask_program(_service(placed), placed.target.ready.path, timeout_s=_SOON_S)
            return status < 400
        return False

    def forget(self, kept: set[RunKey]) -> None:
        """Of other deployments than these nothing is remembered any more."""
        self._seen = {seen: at for seen, at in self._seen.items() if seen[0] in kept}

    async def _http(self, api: ClusterApi, placed: Placed, path: str) -> HealthSample:
        try:
            status, text = await api.ask_program(_service(placed), path, timeout_s=_HTTP_S)
        except Unanswered as error:
            return HealthSample(1.0, f"no answer from {path}: {error}")
        said = "" if status < 400 else f": {self._plain(placed, text)[:_SAID_CHARS]}"
        return HealthSample(float(status >= 400), f"status {status} from {path}{said}")

    async def _metric(self, api: ClusterApi, placed: Placed, target: str) -> HealthSample:
        path, _, name = target.partition("#")
        try:
            status, text = await api.ask_program(_service(placed), path, timeout_s=_HTTP_S)
        except Unanswered as error:
            return HealthSample(inf, f"no answer from {path}: {error}")
        values = [float(m[1]) for m in re.finditer(_SERIES % re.escape(name), text, re.MULTILINE)]
        if status >= 400 or not values:
            return HealthSample(inf, f"{path} has no metric {name} (status {status})")
        return HealthSample(max(values), f"{name} is {max(values):g}")

    async def _log(self, api: ClusterApi, placed: Placed, check: HealthCheckSpec) -> HealthSample:
        pods = pods_seen(await api.find("Pod", revision_labels(placed.target.environment, placed.key)))
        if not pods:
            return HealthSample(inf, "it has no pod")
        lines: list[str] = []
        for pod in pods:
            lines += await self._new_lines(api, placed, check, pod)
        lines = [line for line in lines if re.search(check.target, line)]
        return HealthSample(
            float(len(lines)), self._plain(placed, lines[0])[:_SAID_CHARS] if lines else "no line matches"
        )

    async def _new_lines(self, api: ClusterApi, placed: Placed, check: HealthCheckSpec, pod: PodSeen) -> list[str]:
        log = await api.log(pod.name, container=PROGRAM, tail=_LINES, dated=True)
        dated = [(_sortable(at), text) for at, _, text in (line.partition(" ") for line in log.lines)]
        place = (placed.key, check.name, pod.name)
        after = self._seen.get(place, "")
        if dated:
            self._seen[place] = max(after, dated[-1][0])
        return [text for at, text in dated if at > after]

    # A command: a Job beside the program.

    async def _command(self, api: ClusterApi, placed: Placed, check: HealthCheckSpec) -> HealthSample:
        deployment = await api.get("Deployment", revision_name(placed))
        if deployment is None:
            return HealthSample(1.0, "its Deployment is gone")
        name = f"{_service(placed)}-look-{secrets.token_hex(4)}"
        try:
            await api.apply(look(deployment, name, check.argv, placed, start_s=_LOOK_START_S))
            return await self._ended(api, placed, name, check.argv[0])
        finally:
            with contextlib.suppress(SandboxUnavailable):
                await api.delete("Job", name)

    async def _ended(self, api: ClusterApi, placed: Placed, name: str, program: str) -> HealthSample:
        begun, until = self._clock.monotonic_ms(), _LOOK_START_S
        started = False
        while self._clock.monotonic_ms() - begun <= 1000 * until:
            pod = next(iter(pods_seen(await api.find("Pod", {LOOK_LABEL: name}))), None)
            if pod is not None and (why := pod.broken or pod.refused):
                return HealthSample(1.0, self._plain(placed, f"{program} cannot be started: {why}")[:_SAID_CHARS])
            if pod is not None and pod.has_ended:
                return await self._said(api, placed, pod)
            if pod is not None and pod.has_started and not started:
                started, begun, until = True, self._clock.monotonic_ms(), LOOK_S
            await self._clock.sleep(api.poll_s)
        return HealthSample(1.0, f"{program} did not {'end' if started else 'start'} within {until} s")

    async def _said(self, api: ClusterApi, placed: Placed, pod: PodSeen) -> HealthSample:
        log = await api.log(pod.name, container=PROGRAM, tail=20)
        said = self._plain(placed, log.text)[-_SAID_CHARS:].strip()
        return HealthSample(float(pod.exit_code != 0), f"exit code {pod.exit_code}: {said}")


def _service(placed: Placed) -> str:
    return placed.target.service_name


def _sortable(stamp: str) -> str:
    """RFC 3339 in UTC with as many digits of a second as there can be: the nodes leave zeros at the end out."""
    whole, _, part = stamp.removesuffix("Z").partition(".")
    return f"{whole}.{part:0<9}"
