"""What the API server says of a run's pod: whether it can be waited for, runs, or ended, and why (RC-14..RC-19)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fleet.tools import RunReason

__all__ = ["Pod", "pod_of", "reason_of"]

_NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_NO_START = frozenset({"CreateContainerError", "RunContainerError", "CrashLoopBackOff"})
_DISK_WORDS = ("ephemeral", "emptydir", "exceeds the limit")


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. `stage`: `waiting` goes on by itself, `stuck` does not, `running` has a log, `ended` has no process."""

    name: str
    stage: Literal["waiting", "stuck", "no_image", "running", "ended"]
    why: str = ""
    """What the cluster says, for people."""
    is_unschedulable: bool = False
    has_run: bool = False
    """Its container was started at least once, so it may have a log."""
    ended_as: str = ""
    """Reason of the container's end: `OOMKilled`, `Error`, `Completed`, ..."""
    removed_as: str = ""
    """Reason of the pod's own end: `Evicted`, `DeadlineExceeded`, `Preempting`, ..."""
    exit_code: int | None = None


def pod_of(document: Mapping[str, Any]) -> Pod:
    """The pod as its object in the API says it; whatever is missing counts as not yet there."""
    status = _mapping(document.get("status"))
    name = str(_mapping(document.get("metadata")).get("name", ""))
    container = _mapping(next(iter(_list(status.get("containerStatuses"))), None))
    state = _mapping(container.get("state"))
    ended, waiting = _mapping(state.get("terminated")), _mapping(state.get("waiting"))
    phase = status.get("phase")
    code = ended.get("exitCode")
    if ended or phase in ("Failed", "Succeeded"):
        return Pod(
            name,
            "ended",
            why=_words(status, ended),
            has_run=bool(ended),
            ended_as=str(ended.get("reason", "")),
            removed_as=str(status.get("reason", "")),
            exit_code=code if isinstance(code, int) else None,
        )
    if "running" in state:
        return Pod(name, "running", has_run=True)
    held = str(waiting.get("reason", ""))
    if held in _NO_IMAGE:
        return Pod(name, "no_image", why=_words(waiting))
    if held in _NO_START:
        return Pod(name, "stuck", why=_words(waiting))
    refused = _unschedulable(status)
    return Pod(name, "waiting", why=refused or _words(waiting), is_unschedulable=bool(refused))


def reason_of(pod: Pod | None) -> RunReason:
    """The reason of a run whose shim could not say it: the kernel or the cluster ended it."""
    if pod is None:
        return "sandbox_lost"
    if pod.ended_as == "OOMKilled":
        return "oom_killed"
    if pod.removed_as == "DeadlineExceeded":
        return "timeout"
    if pod.removed_as == "Evicted" and any(word in pod.why.lower() for word in _DISK_WORDS):
        return "disk_limit"
    return "sandbox_lost"


def _unschedulable(status: Mapping[str, Any]) -> str:
    for condition in map(_mapping, _list(status.get("conditions"))):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return f"Unschedulable: {str(condition.get('message', ''))[:300]}"
    return ""


def _words(*found: Mapping[str, Any]) -> str:
    said = [str(one[key]) for one in found for key in ("reason", "message") if one.get(key)]
    return ": ".join(dict.fromkeys(said))[:500]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
