"""Procedures of DEPLOY and MONITOR: deploy what a person approved, watch it, roll it back (LC-49, LC-61..LC-63)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isinf
from typing import Any

from fleet.deploy.port import Deployments, Placed, Standing
from fleet.events.payload import Payload
from fleet.events.story import StoryParked
from fleet.events.workspace import DeploymentRecorded, HealthCheck, HealthObserved, IncidentClosed, IncidentOpened
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import Digest, EntityId, RunKey, StepId
from fleet.kernel.types import ProbeResult
from fleet.owner.duties.checkpoints import save_checkpoint
from fleet.owner.duties.gates import fix_task_id, record_park
from fleet.owner.journal.steps import Probe, Work
from fleet.owner.workbench import Workbench, seat, together
from fleet.policy.deploy import DeployTarget, HealthCheckSpec, HealthSample, Window, judged
from fleet.story.commands.interventions import lost_words
from fleet.story.deployments import Deployment
from fleet.story.intents import Deploy, ObserveHealth, RollBack


@dataclass(frozen=True, slots=True)
class Checked:
    """What one check came to. Numbers are texts, because records hold no fractions."""

    name: str
    ok: bool
    value: str
    threshold: str
    detail: str


@dataclass(frozen=True, slots=True)
class Watched:
    """What all checks came to, from and to in UTC milliseconds."""

    from_ms: int
    to_ms: int
    checks: tuple[Checked, ...]

    @property
    def ok(self) -> bool:
        """Whether no check breached."""
        return all(check.ok for check in self.checks)

    @property
    def findings(self) -> str:
        """What breached, in words."""
        return "; ".join(
            f"{c.name} is {c.value}, at most {c.threshold} is healthy ({c.detail})" for c in self.checks if not c.ok
        )

    def as_result(self) -> dict[str, Any]:
        """The result of the step; `of` reads it."""
        summary = "healthy" if self.ok else self.findings
        checks = [asdict(check) for check in self.checks]
        return {"from": self.from_ms, "to": self.to_ms, "checks": checks, "summary": summary}

    @classmethod
    def of(cls, result: dict[str, Any]) -> Watched:
        """As recorded."""
        return cls(result["from"], result["to"], tuple(Checked(**check) for check in result["checks"]))


async def watch(deployments: Deployments, target: DeployTarget, *, clock: Clock) -> Watched:
    """Every check over its windows, for as long as the longest one takes; over at once when one breaches."""
    began_ms, began = clock.now_ms(), clock.monotonic_ms()
    until = began + 1000 * max(check.window_s for check in target.monitor.checks)
    breached: list[str] = []

    async def windows(check: HealthCheckSpec) -> Checked:
        while True:
            window = await _window(deployments, target.environment, check, clock=clock, ends_early=breached)
            if not window.ok:
                breached.append(check.name)
            if breached or clock.monotonic_ms() >= until:
                return _checked(check, window)

    checks = await together(windows(check) for check in target.monitor.checks)
    return Watched(began_ms, began_ms + clock.monotonic_ms() - began, tuple(checks))


async def _window(
    deployments: Deployments, environment: str, check: HealthCheckSpec, *, clock: Clock, ends_early: list[str]
) -> Window:
    ends, samples = clock.monotonic_ms() + check.window_s * 1000, list[HealthSample]()
    while True:
        samples.append(await deployments.sample(environment, check))
        verdict = judged(check, samples)
        left_s = (ends - clock.monotonic_ms()) / 1000
        # A number only grows within its window: what is over the threshold stays so.
        if not verdict.ok or ends_early or left_s <= 0:
            return verdict
        await clock.sleep(min(check.interval_s, left_s))


def _checked(check: HealthCheckSpec, window: Window) -> Checked:
    value = "not measured" if isinf(window.value) else f"{window.value:g}"
    threshold = f"{check.threshold:g}"
    return Checked(name=check.name, ok=window.ok, value=value, threshold=threshold, detail=window.detail[:500])


DEPLOYER, MONITOR = seat("deployer"), seat("monitor")
_MARGIN_S = 120
"""Beside the time that a program may take to become ready: its files have to be put in place."""
_NOTHING = "nothing"
"""What a rollback goes back to when nothing ran before."""


async def deploy(bench: Workbench, intent: Deploy) -> None:
    """The tree runs in its environment, or it is on record why it does not. Never sent a second time (RC-52)."""
    target, deployments = _target(bench, intent.environment)
    deployment_id = bench.new_id("dp", f"deployments/{intent.number}")
    step, tree = f"deployments/{intent.number}", Digest(intent.tree)
    args = {"environment": intent.environment, "tree": intent.tree}
    toolchain = bench.toolchain

    async def send(key: RunKey) -> dict[str, Any]:
        placed = Placed(key=key, story=bench.state.story_id, tree=tree, toolchain=toolchain, target=target)
        return _told(await deployments.deploy(placed), key)

    async def look() -> ProbeResult:
        standing = await deployments.standing(intent.environment)
        return "happened" if standing.key == _key_of(bench, step) else "not_happened"

    if step not in bench.state.steps:
        await save_checkpoint(bench, f"{step}/checkpoint", note=f"before deployment to {intent.environment}")
    work = Work(seat=DEPLOYER, tool="environment", op="start", args=args)
    wall_s = target.ready.within_s + _MARGIN_S
    result = await bench.journal.act_unsafe(
        step, args | {"deployment": deployment_id}, work, send, probe=Probe("environment", look), wall_s=wall_s
    )
    recorded = DeploymentRecorded(
        deployment_id=deployment_id,
        environment=intent.environment,
        tree_digest=tree,
        revision=_key_of(bench, step),
        # What a probe or a person says has happened is running; a target that failed says so itself.
        status="failed" if result.get("status") == "failed" else "succeeded",
        step_id=StepId(step),
        rollback_ref=(result.get("previous") or _NOTHING) if target.rollback == "previous" else None,
        monitor_s=target.monitor.window_s,
        detail=str(result.get("detail") or result.get("note") or "")[:2000],
    )
    await bench.journal.record(f"{step}/recorded", recorded, actor=DEPLOYER.principal)


async def observe_health(bench: Workbench, intent: ObserveHealth) -> None:
    """One window of every check is on record; a breach opens an incident, health that holds closes those there are."""
    deployment = bench.state.deployments[intent.deployment_id]
    target, deployments = _target(bench, deployment.environment)
    step = f"{_place(bench, deployment)}/watch/{intent.number}"
    args = {"environment": deployment.environment, "window": intent.number}
    longest_s = max(check.window_s for check in target.monitor.checks)
    if await _is_replaced(bench, deployments, deployment):
        return

    async def look() -> dict[str, Any]:
        return (await watch(deployments, target, clock=bench.clock)).as_result()

    work = Work(seat=MONITOR, tool="environment", op="observe", args=args)
    seen = Watched.of(await bench.journal.act(step, args, work, look, wall_s=longest_s + _MARGIN_S))
    if await _is_replaced(bench, deployments, deployment):
        return
    observed = HealthObserved(
        environment=deployment.environment,
        deployment_id=EntityId(deployment.deployment_id),
        ok=seen.ok,
        checks=tuple(HealthCheck(name=c.name, ok=c.ok, value=c.value, threshold=c.threshold) for c in seen.checks),
        from_=seen.from_ms,
        to=seen.to_ms,
    )
    after = deployment.seen(ok=seen.ok, from_ms=seen.from_ms, to_ms=seen.to_ms)
    also = _closed(bench, after) if seen.ok else _breached(bench, after, seen)
    await bench.journal.record(f"{step}/observed", observed, *also, actor=MONITOR.principal)


async def _is_replaced(bench: Workbench, deployments: Deployments, deployment: Deployment) -> bool:
    """Whether something else runs there, before a window or since it began; the story waits for a person then."""
    if (await deployments.standing(deployment.environment)).key == deployment.revision:
        return False
    if bench.state.disposition != "active":
        return True  # who ended it has it on record already
    ended = (await deployments.occupancy(deployment.environment)).ended
    if ended is not None and ended.key == deployment.revision:
        detail = lost_words(bench.state, deployment.environment, ended.told)
    else:
        detail = (
            f"{deployment.environment} does not run what this story deployed any more: another story was deployed "
            "there, or somebody ended it. What runs there says nothing about this story. Give each story that is "
            f"watched an environment of its own, or cancel this one with `fleet story cancel {bench.state.story_id}`"
        )
    await record_park(bench, cause="operator", detail=detail)
    return True


def _breached(bench: Workbench, deployment: Deployment, seen: Watched) -> tuple[Payload, ...]:
    """The incident; and the story waits for a person when its first window breached and nothing can be rolled back."""
    name = f"{_place(bench, deployment)}/incident/{deployment.windows}"
    summary = f"Deployment to {deployment.environment} is not healthy: {seen.findings}"[:2000]
    opened = IncidentOpened(
        incident_id=bench.new_id("in", name),
        severity="high",
        summary=summary,
        source="monitor",
        deployment_id=EntityId(deployment.deployment_id),
        task_id=fix_task_id(bench, "incident_found"),
    )
    if deployment.windows > 1 or deployment.rolls_back:
        return (opened,)
    detail = (
        f"{summary}. Its target declares no rollback: put {deployment.environment} right, then run `fleet resume "
        f"{bench.state.story_id}`, and the story goes back to build with a task for this"
    )
    return (opened, StoryParked(cause="operator", detail=detail, ref=opened.incident_id))


def _closed(bench: Workbench, deployment: Deployment) -> tuple[Payload, ...]:
    if not deployment.is_healthy:
        return ()
    resolution = f"deployment {deployment.deployment_id} has been healthy for {deployment.healthy_ms // 1000} s"
    return tuple(
        IncidentClosed(incident_id=EntityId(i.incident_id), resolution=resolution) for i in bench.state.open_incidents
    )


async def roll_back(bench: Workbench, intent: RollBack) -> None:
    """What ran before runs again, and that is on record; where it cannot, the story waits for a person."""
    deployment = bench.state.deployments[intent.deployment_id]
    target, deployments = _target(bench, deployment.environment)
    step, failed = f"{_place(bench, deployment)}/rollback", RunKey(deployment.revision)
    args = {"environment": deployment.environment, "to": deployment.rollback_ref}

    async def send(_: RunKey) -> dict[str, Any]:
        return _told(await deployments.roll_back(deployment.environment, failed=failed), failed)

    async def look() -> ProbeResult:
        return "not_happened" if (await deployments.standing(deployment.environment)).key == failed else "happened"

    work = Work(seat=DEPLOYER, tool="environment", op="rollback", args=args)
    wall_s = target.ready.within_s + _MARGIN_S
    result = await bench.journal.act_unsafe(step, args, work, send, probe=Probe("environment", look), wall_s=wall_s)
    is_back = result.get("status") != "failed"
    detail = str(result.get("detail") or result.get("note") or "")[:2000]
    payloads: list[Payload] = [
        DeploymentRecorded(
            deployment_id=EntityId(deployment.deployment_id),
            environment=deployment.environment,
            tree_digest=deployment.tree,
            revision=deployment.revision,
            status="rolled_back" if is_back else "failed",
            step_id=StepId(step),
            rollback_ref=deployment.rollback_ref,
            detail=detail,
        )
    ]
    if not is_back:
        payloads.append(StoryParked(cause="operator", detail=f"the rollback failed: {detail}"))
    await bench.journal.record(f"{step}/recorded", *payloads, actor=DEPLOYER.principal)


def _target(bench: Workbench, environment: str) -> tuple[DeployTarget, Deployments]:
    matching = next((target for target in bench.rules.targets if target.environment == environment), None)
    if matching is None or bench.deployments is None:
        raise ConfigError(
            f"environment {environment!r} is not declared any more: declare it under deploy.targets of fleet.yaml and "
            "start the fleet again, or give the story another way",
            environment=environment,
        )
    return matching, bench.deployments


def _place(bench: Workbench, deployment: Deployment) -> str:
    return f"deployments/{list(bench.state.deployments).index(deployment.deployment_id) + 1}"


def _key_of(bench: Workbench, step: str) -> RunKey:
    return bench.state.steps[StepId(step)].started.key


def _told(standing: Standing, key: RunKey) -> dict[str, Any]:
    """The result of a step that changed an environment."""
    is_failed = standing.status == "failed"
    return {
        "status": "failed" if is_failed else "succeeded",
        "detail": standing.detail,
        "previous": standing.previous,
        "key": key,
        "summary": standing.detail if is_failed else f"runs: {standing.key or 'nothing'}",
    }
