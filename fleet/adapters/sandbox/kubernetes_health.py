"""What the probe of the Kubernetes backend found, as the health of a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fleet.adapters.sandbox.kubernetes_api import Right
from fleet.adapters.sandbox.kubernetes_job import PART_LABEL
from fleet.ports import SandboxHealth

__all__ = ["MECHANISMS", "NAME", "down", "health_of", "named", "report_of"]

NAME = "kubernetes"
MECHANISMS: dict[str, str] = {
    "memory": "cgroup",
    "pids": "watchdog",
    "disk": "watchdog+eviction",
    "file_size": "rlimit",
    "open_files": "rlimit",
    "core": "rlimit",
    "cpu": "cgroup",
    "wall_time": "shim+deadline",
    "idle_time": "shim",
    "output": "shim",
    "network": "network_policy",
    "processes_view": "namespace",
    "filesystem": "image",
    "syscalls": "seccomp",
}
"""Limit or isolation -> what enforces it."""


def named(right: Right) -> str:
    """The missing right, for people."""
    resource = "/".join(filter(None, (right.resource, right.subresource)))
    return f"may not {right.verb} {'.'.join(filter(None, (resource, right.group)))}"


def down(complaint: str, mend: str) -> SandboxHealth:
    """No run can be held."""
    return SandboxHealth(status="down", backend=NAME, unmet=(f"sandbox: {complaint}",), mend=(mend,))


def report_of(text: str) -> dict[str, str]:
    """What the probe inside said: item -> problem, empty for one that holds."""
    try:
        found: object = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return {"privileges": "the probe said nothing that can be read"}
    return {str(key): str(value) for key, value in found.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def health_of(report: Mapping[str, str], policies: list[Mapping[str, Any]] | None) -> SandboxHealth:
    """What the probe found; a missing policy counts even where nothing could be reached just now."""
    problems = dict(report)
    if policies is not None and not any(_denies_all(spec) for spec in policies):
        problems["egress_denied"] = "the namespace has no NetworkPolicy that denies runs all traffic"
    unmet = tuple(f"{item}: {problem}" for item, problem in problems.items() if problem)
    mend = ("apply the NetworkPolicy of docs/sandbox.md; see that the network plugin enforces it",) if unmet else ()
    enforced = {
        key: value for key, value in MECHANISMS.items() if key != "network" or not problems.get("egress_denied")
    }
    return SandboxHealth(status="degraded" if unmet else "ok", backend=NAME, enforced=enforced, unmet=unmet, mend=mend)


def _denies_all(spec: Mapping[str, Any]) -> bool:
    is_for_runs = spec.get("podSelector") in (None, {}, {"matchLabels": {PART_LABEL: "run"}})
    return is_for_runs and "Egress" in (spec.get("policyTypes") or ()) and not spec.get("egress")
