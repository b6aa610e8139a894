"""What an engine really holds on this machine, found by trying (RC-32): flags that are ignored in silence show here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fleet.adapters.sandbox.containers_launch import EngineFacts, EngineName
from fleet.adapters.sandbox.containers_process import ContainerEnded
from fleet.adapters.sandbox.limits import mechanisms
from fleet.adapters.sandbox.probes import LIMITS_PROBE_LIMITS, found_limits, health_from
from fleet.ports import SandboxHealth
from fleet.tools import RunResult, RunSpec

__all__ = ["health_of", "limits_probe", "limits_report", "mechanisms_of", "no_engine"]


def limits_probe() -> RunSpec:
    """A run that uses more processor time, then more memory than it may have; it has to end as `oom_killed`."""
    argv = ("python", "-I", "/fleet/inside/limit_probe.py", str(2 * LIMITS_PROBE_LIMITS.memory_bytes))
    return RunSpec(argv=argv, limits=LIMITS_PROBE_LIMITS)


def limits_report(facts: EngineFacts, ended: ContainerEnded | None, result: RunResult) -> dict[str, str]:
    """Check -> problem, empty when it holds. Where a cgroup is to limit memory the kernel itself must have done it."""
    report = found_limits(result)
    is_missed = "memory" in facts.controllers and not (ended and ended.is_oom_seen)
    if is_missed and not report["31"]:
        report["31"] = f"{facts.name} took the memory limit, and the kernel did not apply it"
    return report


def mechanisms_of(facts: EngineFacts) -> dict[str, str]:
    """Limit or isolation -> what enforces it."""
    return {**mechanisms(facts.controllers), **({} if "cpu" in facts.controllers else {"cpu": "rlimit"})}


def health_of(facts: EngineFacts, preflight: RunResult, limits: Mapping[str, str], *, survivors: int) -> SandboxHealth:
    """What the probes found; `limits` is that of `limits_report`."""
    if preflight.reason == "sandbox_lost":
        return no_engine(facts.name, preflight.stderr.text or "the container of the probe was lost")
    found = health_from(
        preflight.stdout.text, preflight.exit_code, preflight.stderr.text, survivors, limits, mechanisms_of(facts)
    )
    return replace(found, backend=facts.name)


def no_engine(name: EngineName, complaint: str) -> SandboxHealth:
    """The health of a machine on which the engine starts no container."""
    return SandboxHealth(
        status="down",
        backend=name,
        unmet=(f"sandbox: {complaint}",),
        mend=(f"see the message of {name}; `fleet sandbox check` runs the probes again",),
    )
