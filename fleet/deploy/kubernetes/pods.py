"""What the API server says of the pods of a deployed program: whether they are ready, and why they never will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_NO_CONTAINER = frozenset({"CreateContainerError", "CreateContainerConfigError"})
_NO_PROGRAM = frozenset({"RunContainerError", "StartError"})
_WORDS = 500


@dataclass(frozen=True, slots=True)
class PodSeen:
    """One pod of a revision."""

    name: str
    is_ready: bool = False
    has_started: bool = False
    """Its program was started at least once."""
    has_ended: bool = False
    """Its program ended, at least once."""
    exit_code: int | None = None
    """Of the program that ended last."""
    is_again: bool = False
    """It was started again: what the one before printed is in the log of that one."""
    refused: str = ""
    """Why the cluster cannot start it, which is no fault of the program."""
    broken: str = ""
    """Why its program cannot be started."""
    homeless: str = ""
    """Why no node takes it yet; one may be added."""
    waiting: str = ""
    """What it waits for."""


def pods_seen(documents: Sequence[Mapping[str, Any]]) -> list[PodSeen]:
    """The pods as their objects say it, without those that are on their way out."""
    return [_seen(one) for one in documents if not _mapping(one.get("metadata")).get("deletionTimestamp")]


def quota_refusal(deployment: Mapping[str, Any]) -> str:
    """Why the cluster makes no pods of the Deployment; empty while it does."""
    failed = _condition(_mapping(deployment.get("status")), "ReplicaFailure")
    return _words(failed) if failed.get("status") == "True" else ""


def is_rolled_out(deployment: Mapping[str, Any], replicas: int) -> bool:
    """Whether all its pods are ready, and are those of the present manifest."""
    status, place = _mapping(deployment.get("status")), _mapping(deployment.get("metadata"))
    ready, updated = (int(status.get(key) or 0) for key in ("readyReplicas", "updatedReplicas"))
    is_seen = int(status.get("observedGeneration") or 0) >= int(place.get("generation") or 1)
    return is_seen and min(ready, updated) >= replicas


def _seen(document: Mapping[str, Any]) -> PodSeen:
    status = _mapping(document.get("status"))
    name = str(_mapping(document.get("metadata")).get("name", ""))
    first = _mapping(next(iter(_list(status.get("initContainerStatuses"))), None))
    program = _mapping(next(iter(_list(status.get("containerStatuses"))), None))
    state = _mapping(program.get("state"))
    last = _mapping(_mapping(program.get("lastState")).get("terminated"))
    ended = _mapping(state.get("terminated")) or last
    waiting = _mapping(state.get("waiting"))
    broken = _words(waiting) if waiting.get("reason") in _NO_PROGRAM else ""
    if ended.get("reason") in _NO_PROGRAM:
        broken = _words(ended)
    code = ended.get("exitCode")
    return PodSeen(
        name,
        is_ready=_condition(status, "Ready").get("status") == "True",
        has_started="running" in state or bool(ended),
        has_ended=bool(ended),
        exit_code=code if isinstance(code, int) else None,
        is_again=bool(last) and not state.get("terminated"),
        refused=_refused(first, waiting),
        broken=broken,
        homeless=_homeless(status),
        waiting=_words(waiting) or _words(_mapping(_mapping(first.get("state")).get("waiting"))),
    )


def _refused(first: Mapping[str, Any], waiting: Mapping[str, Any]) -> str:
    before = _mapping(first.get("state"))
    for held in (_mapping(before.get("waiting")), waiting):
        if held.get("reason") in _NO_IMAGE | _NO_CONTAINER:
            return _words(held)
    unpacked = _mapping(before.get("terminated")) or _mapping(_mapping(first.get("lastState")).get("terminated"))
    if unpacked and unpacked.get("exitCode") != 0:
        return f"the tree cannot be put in place: {_words(unpacked)}: see whether the image has python3"
    return ""


def _homeless(status: Mapping[str, Any]) -> str:
    scheduled = _condition(status, "PodScheduled")
    return f"Unschedulable: {_words(scheduled)}" if scheduled.get("reason") == "Unschedulable" else ""


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = (_mapping(one) for one in _list(status.get("conditions")))
    return _mapping(next((one for one in conditions if one.get("type") == kind), None))


def _words(state: Mapping[str, Any]) -> str:
    said = [str(state[key]) for key in ("reason", "message") if state.get(key)]
    return ": ".join(dict.fromkeys(said))[:_WORDS]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
