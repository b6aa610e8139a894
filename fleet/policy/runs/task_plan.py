"""Translates the wire form of a run to the run itself. Its end is translated back to the wire form (RC-1..RC-19)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.policy.runs.spec import BlobMount, Limits, RunResult, RunSpec, RunStatus, ServiceSpec
from fleet.policy.runs.task_spec import (
    DEFAULT_COMMAND,
    CapturedArtifact,
    TaskCaptured,
    TaskMetadata,
    TaskMount,
    TaskResources,
    TaskResult,
    TaskSpec,
)

_WORKSPACE = "/workspace"
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_FORBIDDEN_TARGETS = ("/", "/proc", "/sys", "/dev", "/etc")
_SHIM = ("python", "/fleet/inside/agent_task.py")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INPUTS = re.compile(r"/inputs/[A-Za-z0-9._-]{1,100}")


class TaskCaps:
    """What a run may have at most on this fleet and in its role (RC-6).

    Args:
        cpu_millis: thousandths of a CPU.
        memory_bytes, disk_bytes: bytes.
        pids: processes and threads.
        overall_s: seconds.
    """

    def __init__(
        self,
        *,
        cpu_millis: int = 4_000,
        memory_bytes: int = 8 << 30,
        disk_bytes: int = 20 << 30,
        pids: int = 1024,
        overall_s: int = 14_400,
    ) -> None:
        self.cpu_millis, self.memory_bytes, self.disk_bytes = cpu_millis, memory_bytes, disk_bytes
        self.pids, self.overall_s = pids, overall_s


def run_of_task(task: TaskSpec, *, images: Collection[str], caps: TaskCaps | None = None) -> RunSpec:
    """The run that the task asks for.

    Args:
        images: allow-listed names of toolchains and images (RC-1).
        caps: a named value above its cap is refused, never lowered; a default is lowered (RC-6).

    Raises:
        PolicyDenied: image, mount or resource that nobody may have.
        InvalidInput: what cannot be meant; details name the field.
    """
    caps = caps or TaskCaps()
    if task.image not in images:
        raise PolicyDenied(
            f"image {task.image!r} is not listed: use one of {', '.join(sorted(images))}",
            rule_id="image_not_listed",
            field="image",
            allowed=sorted(images),
        )
    if task.effect not in (None, "KEYED") or task.key is not None:
        raise InvalidInput("effect and key are set by the fleet: leave them out", field="effect")
    if task.context.hydration_refs:
        raise InvalidInput("hydration_refs are resolved into context packs, not into runs", field="context")
    if task.input.patch is not None:
        raise InvalidInput("apply a patch with files.edit first, then name its tree", field="input.patchDigest")
    return RunSpec(
        argv=_SHIM if task.cmd == DEFAULT_COMMAND else task.cmd,
        tree=task.input.tree,
        env=dict(task.env),
        mounts=tuple(map(_mount, task.mounts)),
        limits=_limits(task, caps),
        artifacts=tuple(map(_artifact, task.artifacts.paths)),
        keep_tree=True,
        toolchain=task.image,
        hosts=task.network.hosts,
        services=tuple(ServiceSpec(**s.model_dump()) for s in task.services),
    )


def _mount(mount: TaskMount) -> BlobMount:
    target = posixpath.normpath(mount.target)
    if any(target == f or (f != "/" and target.startswith(f"{f}/")) for f in _FORBIDDEN_TARGETS):
        raise _mount_denied(f"nothing is mounted at {mount.target}")
    if mount.type != "blob":
        raise _mount_denied(f"a mount of type {mount.type}: the workspace is the tree, /tmp is private already")
    if not _DIGEST.fullmatch(mount.source):
        raise InvalidInput("the source of a blob is its digest, sha256:<64 hex digits>", field="mounts.source")
    if not mount.read_only:
        raise _mount_denied("a blob is read-only")
    if not _INPUTS.fullmatch(target):
        raise _mount_denied(f"a blob at {mount.target}: it goes to /inputs/<name>")
    return BlobMount(blob=Digest(mount.source), target=target)


def _mount_denied(why: str) -> PolicyDenied:
    return PolicyDenied(f"mounts of the run: {why}", rule_id="mount_refused", field="mounts")


def _artifact(path: str) -> str:
    clean = posixpath.normpath(path)
    if not clean.startswith(f"{_WORKSPACE}/") or clean != path.rstrip("/"):
        raise InvalidInput(f"{path[:200]!r} is no plain path below {_WORKSPACE}", field="artifacts.paths")
    return clean.removeprefix(f"{_WORKSPACE}/")


def _limits(task: TaskSpec, caps: TaskCaps) -> Limits:
    resources, named = task.resources, task.resources.model_fields_set

    def capped(field: str, value: int, cap: int, shown: Callable[[TaskResources], object]) -> int:
        if value > cap and field in named:
            raise PolicyDenied(
                f"resources.{field} {shown(resources)} is above what this fleet gives ({cap})",
                rule_id="over_cap",
                field=f"resources.{field}",
                cap=cap,
            )
        return min(value, cap)

    millis = int(Decimal(resources.cpu) * 1000)
    if not 100 <= millis <= 64_000:
        raise InvalidInput("resources.cpu is between 0.1 and 64", field="resources.cpu", value=resources.cpu)
    if task.timeouts.overall_s > caps.overall_s and "overall_s" in task.timeouts.model_fields_set:
        raise PolicyDenied(
            f"timeouts.overallSec {task.timeouts.overall_s} is above what this fleet gives ({caps.overall_s})",
            rule_id="over_cap",
            field="timeouts.overallSec",
            cap=caps.overall_s,
        )
    memory, disk = _bytes(resources.memory), _bytes(resources.disk)
    if memory < 16 << 20 or disk < 1 << 20:
        raise InvalidInput("resources.memory is at least 16Mi and resources.disk at least 1Mi", field="resources")
    overall_s = min(task.timeouts.overall_s, caps.overall_s)
    return Limits(
        overall_s=overall_s,
        idle_s=min(task.timeouts.idle_s, overall_s),
        grace_s=task.timeouts.grace_s,
        cpu_millis=capped("cpu", millis, caps.cpu_millis, lambda r: r.cpu),
        memory_bytes=capped("memory", memory, caps.memory_bytes, lambda r: r.memory),
        pids=capped("pids", resources.pids, caps.pids, lambda r: r.pids),
        disk_bytes=capped("disk", disk, caps.disk_bytes, lambda r: r.disk),
        file_bytes=2 << 30,
        output_bytes=64 << 20,
    )


def _bytes(size: str) -> int:
    return int(size[:-2]) * _UNITS[size[-2:]]


def task_result(
    *,
    run_id: EntityId,
    story_id: StoryId,
    task_id: EntityId | None = None,
    tree_in: Digest | None = None,
    status: RunStatus,
    result: RunResult | None,
    problem: Mapping[str, Any] | None = None,
    key: str | None = None,
    started_ms: int | None = None,
    finished_ms: int | None = None,
) -> TaskResult:
    """How the run ended, or where it is, in the words of the contract.

    Args:
        result: of a run whose status is final; its status is the one that counts then.
        problem: why no sandbox could hold the run; its status is `error`.
        started_ms, finished_ms: UTC milliseconds since the Unix epoch, as recorded.
    """
    about = TaskMetadata(
        run_id=run_id,
        story_id=story_id,
        task_id=task_id,
        key=key,
        started_at=_rfc3339(started_ms),
        finished_at=_rfc3339(finished_ms),
        tree_in=tree_in,
    )
    if result is None:
        return TaskResult(status=status, metadata=about, problem=dict(problem) if problem else None)
    metadata = about.model_copy(
        update={
            "image_digest": result.image,
            "duration": -(-result.usage.wall_ms // 1000),
            "tree_in": result.tree_in,
            "tree_out": result.tree_out,
            "backend": result.backend,
            "limits": {**result.limits, "unmet": list(result.unmet)},
            "usage": {
                "cpuMs": result.usage.cpu_ms,
                "maxMemoryBytes": result.usage.max_memory_bytes,
                "maxPids": result.usage.max_pids,
                "wallMs": result.usage.wall_ms,
            },
        }
    )
    kept = tuple(
        CapturedArtifact(path=f"{_WORKSPACE}/{a.path}", ref=a.blob, size_bytes=a.size_bytes, truncated=a.truncated)
        for a in result.artifacts
    )
    captured = TaskCaptured(
        logs_ref=result.log, artifacts=kept, truncated=result.stdout.truncated or result.stderr.truncated
    )
    return TaskResult(
        status=result.status, exit_code=result.exit_code, reason=result.reason, captured=captured, metadata=metadata
    )


def _rfc3339(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
