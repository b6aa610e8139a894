"""A run in the sandbox as the way to carry a call out: keys, limits, and what its result means (RT-23, RC-51)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping

from pydantic import JsonValue

from fleet.kernel.errors import FleetError, PolicyDenied, SandboxUnavailable
from fleet.kernel.ids import Digest, RunKey
from fleet.kernel.types import OutcomeKind
from fleet.policy.arguments import glob_matches
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import Limits, OutputStream, RunResult, RunSpec, RunStatus
from fleet.sandbox.port import Sandbox
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree
from fleet.trees.tree import changed_paths

_KINDS: Mapping[RunStatus, OutcomeKind] = {
    "passed": "succeeded",
    "failed": "failed",
    "error": "failed",
    "timeout": "timed_out",
    "cancelled": "cancelled",
}
_PROGRAM_MISSING = 127


_TRIES = 3
"""Runs of one call that may be lost with their node or supervisor."""


def run_key(key: RunKey, name: str = "run") -> RunKey:
    """The key of one run of a call; the same call has the same runs after a crash."""
    return RunKey(hashlib.sha256(f"{key}/{name}".encode()).hexdigest())


def limits_of(context: ToolContext, *, memory_bytes: int = 2 << 30) -> Limits:
    """The limits of a run that carries the call out: the time of the call, and no less patience with silence."""
    time_s = max(1, min(context.obligations.timeout_s, 14_400))
    return Limits(overall_s=time_s, idle_s=time_s, memory_bytes=memory_bytes, disk_bytes=4 << 30)


async def run_once(sandbox: Sandbox, spec: RunSpec, context: ToolContext, *, name: str = "run") -> RunResult:
    """The result of the run. One that is awaited no longer is ended, one that was lost is tried again (RC-27).

    Raises:
        SandboxUnavailable: nothing could hold it, or it was lost each time; it says nothing about the call.
        PolicyDenied: it changed a path that the call may not write (rule `path_not_granted`); nothing is recorded.
    """
    # What a lost run of an UNSAFE call has done already, nobody knows.
    again = () if context.obligations.effect == "UNSAFE" else range(2, _TRIES + 1)
    result = await _run(sandbox, spec, context, run_key(context.key, name))
    for attempt in again:
        if (result.status, result.reason) != ("error", "sandbox_lost"):
            break
        result = await _run(sandbox, spec, context, run_key(context.key, f"{name}/{attempt}"))
    if result.status == "error" and result.reason != "config":
        raise SandboxUnavailable(f"the sandbox could not hold the run: {result.reason}", reason=result.reason)
    return result


async def _run(sandbox: Sandbox, spec: RunSpec, context: ToolContext, key: RunKey) -> RunResult:
    try:
        return await sandbox.run(spec, story=context.story_id, key=key, epoch=context.epoch)
    except asyncio.CancelledError:
        with contextlib.suppress(FleetError):
            await sandbox.cancel(key)
        raise


async def outcome_of(
    result: RunResult, context: ToolContext, blobs: BlobStore, *, content: JsonValue = None, text: str | None = None
) -> ToolOutcome:
    """What a run means as an outcome. A non-zero exit is one; a missing program is named as such.

    Args:
        text: what to show instead of all that was printed.
    """
    tree_out = result.tree_out if result.status == "passed" and result.tree_out != context.tree else None
    if tree_out is not None:
        await check_write_paths(context.tree, tree_out, context.obligations.write_paths, blobs)
    reason: str = "program_missing" if result.exit_code == _PROGRAM_MISSING else result.reason
    return ToolOutcome(
        outcome=_KINDS[result.status],
        reason=reason,
        exit_code=result.exit_code,
        content=content,
        text=await printed(result, blobs) if text is None else text,
        artifacts=tuple(a for a in result.artifacts if a.blob is not None),
        tree_out=tree_out,
        run_log=result.log,
        unmet=result.unmet,
        egress=result.egress,
    )


async def printed(result: RunResult, blobs: BlobStore) -> str:
    """Everything that the run wrote: standard output, then standard error."""
    parts = [await _all_of(stream, blobs) for stream in (result.stdout, result.stderr)]
    return "\n".join(part.rstrip("\n") for part in parts if part.strip())


async def _all_of(stream: OutputStream, blobs: BlobStore) -> str:
    if stream.truncated and stream.blob is not None:
        return (await blobs.get(stream.blob)).decode(errors="replace")
    return stream.text


async def check_write_paths(before: Digest | None, after: Digest, globs: tuple[str, ...], blobs: BlobStore) -> None:
    """Return when all that differs between the trees may be written; PolicyDenied names the first path otherwise."""
    if not globs:
        return
    old = await read_tree(blobs, before) if before else {}
    for change in changed_paths(old, await read_tree(blobs, after)):
        if not any(glob_matches(glob, change.path) for glob in globs):
            raise PolicyDenied(
                f"the call changed {change.path!r}, and this role writes only {', '.join(globs)}: nothing was recorded",
                rule_id="path_not_granted",
                path=change.path,
            )
