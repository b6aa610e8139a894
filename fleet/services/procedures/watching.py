"""One window of a deployment: every check takes its looks, and they are judged (LC-49)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isinf
from typing import Any

from fleet.ports import Clock, Deployments
from fleet.services.workbench import together
from fleet.tools import DeployTarget, HealthCheckSpec, Sample, Window, judged

__all__ = ["Checked", "Watched", "watch"]


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
    ends, samples = clock.monotonic_ms() + check.window_s * 1000, list[Sample]()
    while True:
        samples.append(await deployments.sample(environment, check))
        found = judged(check, samples)
        left_s = (ends - clock.monotonic_ms()) / 1000
        # A number only grows within its window: what is over the threshold stays so.
        if not found.ok or ends_early or left_s <= 0:
            return found
        await clock.sleep(min(check.interval_s, left_s))


def _checked(check: HealthCheckSpec, window: Window) -> Checked:
    value = "not measured" if isinf(window.value) else f"{window.value:g}"
    threshold = f"{check.threshold:g}"
    return Checked(name=check.name, ok=window.ok, value=value, threshold=threshold, detail=window.detail[:500])
