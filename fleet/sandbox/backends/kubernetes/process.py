"""One Job from its creation to its removal: the wait for its pod, the reading of its log, the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.spec import Limits, RunReason, Usage
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.backends.kubernetes.api import KubernetesApi
from fleet.sandbox.backends.kubernetes.frames import MAX_LINE_BYTES, BadFrame, Frame, FrameReader, JobResult
from fleet.sandbox.backends.kubernetes.job import Pod, reason_of
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.backends.run_end import natural_reason
from fleet.web.answers import Unanswered

_SLACK_S = 30
_GONE_S = 30.0
_LAST_READS = 2


@dataclass(frozen=True, slots=True)
class JobLaunch:
    """What to create: the Job, the Secrets that it owns, and how they are found again."""

    job: Mapping[str, Any]
    secrets: Sequence[dict[str, Any]]
    """Without owner: the uid of the Job is known once it is there."""
    labels: Mapping[str, str]
    limits: Limits
    output: RunOutput
    max_return_bytes: int
    start_timeout_s: float
    poll_s: float

    @property
    def name(self) -> str:
        """Of the Job."""
        return self.job["metadata"]["name"]


@dataclass(frozen=True, slots=True)
class JobEnded:
    """How the command ended; its pod has no process any more, or is told to have none."""

    reason: RunReason
    exit_code: int | None
    usage: Usage = Usage()
    returned: bytes = b""
    left_out: int = 0
    is_too_large: bool = False
    note: str = ""
    """What the cluster said of an end that was not the command's own."""


async def run_job(api: KubernetesApi, launch: JobLaunch, stop: Stop) -> JobEnded:
    """Run one Job to its end. Never cancel it: ask `stop`, so that the Job is removed.

    Raises:
        SandboxUnavailable: the cluster could not start it; the command was not started.
    """
    if stop.cause is not None:
        return JobEnded(stop.cause, None)
    job = _Job(api, launch, stop)
    try:
        return await job.ended()
    except SandboxUnavailable as error:
        if not job.may_have_started:
            raise
        return JobEnded("sandbox_lost", None, note=str(error))
    finally:
        await job.close()


class _Job:
    """One Job and what is known of its pod. Invariant: once `close` returned, it is deleted or its deadline ends it."""

    def __init__(self, api: KubernetesApi, launch: JobLaunch, stop: Stop) -> None:
        self._api, self._launch, self._stop = api, launch, stop
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(max_return_bytes=launch.max_return_bytes)
        self._changed = asyncio.Event()
        self._pod: Pod | None = None
        self._is_created = False
        self.may_have_started = False
        stop.listener = self._changed.set

    async def ended(self) -> JobEnded:
        """The end, as the shim says it, else as the cluster does."""
        await self._create()
        await self._wait_for_pod()
        if self._pod is None or (self._stop.cause is not None and not self._pod.has_run):
            return JobEnded(self._stop.cause or "sandbox_lost", None)
        if self._pod.stage == "no_image":
            return JobEnded("image_unavailable", None, note=self._pod.why)
        try:
            await self._read_to_end(self._pod.name)
        except BadFrame as error:
            return JobEnded("sandbox_lost", None, note=str(error))
        if self._reader.result is not None:
            return self._as_said(self._reader.result)
        return self._as_found()

    # The start.

    async def _create(self) -> None:
        deadline = self._loop.time() + self._launch.start_timeout_s
        self._is_created = True  # from here on it may be there, also when no answer comes
        while not (created := await self._api.create_job(self._launch.job)).is_ours:
            # What an earlier attempt of this run left: its claim is over, or we would not have been asked.
            await self._api.delete_job(self._launch.name, propagation="Foreground")
            if self._loop.time() > deadline:
                raise SandboxUnavailable(
                    f"an earlier Job {self._launch.name} of this run does not go away: delete it", missing="kubernetes"
                )
            await asyncio.sleep(self._launch.poll_s)
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self._launch.name, "uid": created.uid}
        for manifest in self._launch.secrets:
            if self._stop.cause is not None:
                return
            metadata = {**manifest["metadata"], "ownerReferences": [owner]}
            await self._api.create_secret({**manifest, "metadata": metadata})
            # With the last of its inputs the pod can start, whether or not we hear of it.
            self.may_have_started = manifest is self._launch.secrets[-1]

    async def _wait_for_pod(self) -> None:
        """Return when the pod runs, ended, cannot get its image, or the run is to stop before it started."""
        deadline = self._loop.time() + self._launch.start_timeout_s
        while self._stop.cause is None:
            await self._look()
            if self._pod is not None and self._pod.stage in ("running", "ended"):
                if not self._pod.has_run:
                    raise self._not_started("the cluster ended the pod before it started")
                return
            if self._pod is not None and self._pod.stage == "no_image":
                return
            if self._pod is not None and self._pod.stage == "stuck":
                raise self._not_started("the pod cannot be started")
            if self._loop.time() > deadline:
                raise self._not_started(f"no pod started within {self._launch.start_timeout_s:g} s")
            await self._pause()
        await self._look()

    def _not_started(self, what: str) -> SandboxUnavailable:
        self.may_have_started = False
        said = self._pod.why if self._pod else "it made no pod: see the events of the Job, perhaps a quota"
        missing = "capacity" if self._pod and self._pod.is_unschedulable else "kubernetes"
        return SandboxUnavailable(f"Job {self._launch.name}: {what}: {said or 'it says not why'}", missing=missing)

    async def _look(self) -> None:
        pods = await self._api.pods(self._launch.labels)
        self._pod = pods[0] if pods else None

    # The log.

    async def _read_to_end(self, pod: str) -> None:
        reading = asyncio.create_task(self._read(pod))
        limits = self._launch.limits
        try:
            await self._until_done(reading, limits.overall_s + limits.grace_s + _SLACK_S, until_told=True)
            if not reading.done():
                self._stop.request("timeout")
                # The pod's own grace is that of the run; the shim says how the command took it.
                await self._api.delete_job(self._launch.name, propagation="Background")
                await self._until_done(reading, limits.grace_s + _SLACK_S, until_told=False)
            if reading.done():
                await reading
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _until_done(self, reading: asyncio.Task[None], within_s: float, *, until_told: bool) -> None:
        """Return when the log is read, the time is over, or the run is told to stop: at all, or at once."""
        deadline = self._loop.time() + within_s
        while not reading.done() and (left := deadline - self._loop.time()) > 0:
            if self._stop.is_urgent or (until_told and self._stop.cause is not None):
                return
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait({reading, changed}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()

    async def _read(self, pod: str) -> None:
        """Return with the result, or when the pod ended or went away and its whole log was read."""
        last_reads = 0
        while self._reader.result is None and last_reads < _LAST_READS:
            with contextlib.suppress(Unanswered):
                async with self._api.log(pod) as parts:
                    if parts is not None:
                        await self._take_all(parts)
            if self._reader.result is not None:
                return
            await self._look()
            last_reads += self._pod is None or self._pod.stage == "ended"
            await asyncio.sleep(self._launch.poll_s)

    async def _take_all(self, parts: Any) -> None:
        held = b""
        async for part in parts:
            *lines, held = (held + part).split(b"\n")
            for line in lines:
                self._take(self._reader.feed(line))
            if len(held) > 2 * MAX_LINE_BYTES:
                raise BadFrame("the pod's log has a line that is longer than any frame")
            if self._reader.result is not None:
                return

    def _take(self, frame: Frame | None) -> None:
        output = self._launch.output
        if frame is None or frame.kind not in ("o", "e"):
            return
        output.feed("stdout" if frame.kind == "o" else "stderr", frame.data)
        if output.is_over:
            self._stop.request("output_limit")

    # The end.

    def _as_said(self, result: JobResult) -> JobEnded:
        if result.refused is not None:
            self.may_have_started = False
            raise SandboxUnavailable(
                f"the pod could not start the command: {result.refused}: see whether the image fits", missing="image"
            )
        if result.exit_code is None:
            return JobEnded("sandbox_lost", None, note="the result has no exit code")
        is_full = result.max_pids >= self._launch.limits.pids
        natural = natural_reason(result.exit_code, is_full=is_full)
        cause = result.cause if self._stop.cause in (None, "output_limit") else self._stop.cause
        return JobEnded(
            cause or self._stop.cause or natural,
            result.exit_code,
            Usage(
                wall_ms=result.wall_ms,
                cpu_ms=result.cpu_ms,
                max_memory_bytes=result.max_memory_bytes,
                max_pids=result.max_pids,
            ),
            returned=self._reader.packed,
            left_out=result.left_out,
            is_too_large=result.too_large,
        )

    def _as_found(self) -> JobEnded:
        pod = self._pod
        said = "; ".join(filter(None, (pod.why if pod else "the pod is gone", self._reader.complaint)))
        if not self._reader.has_started and self._stop.cause is None and pod is not None and not pod.removed_as:
            self.may_have_started = False
            raise SandboxUnavailable(f"the image did not start the command: {said}", missing="image")
        return JobEnded(self._stop.cause or reason_of(pod), pod.exit_code if pod else None, note=said[:1000])

    async def close(self) -> None:
        """The Job is deleted; when its pod may still have a process this waits until it has none."""
        self._stop.listener = None
        if not self._is_created:
            return
        with contextlib.suppress(SandboxUnavailable):
            await self._api.delete_job(self._launch.name, propagation="Background")
            deadline = self._loop.time() + _GONE_S + self._launch.limits.grace_s
            while self._reader.result is None and self._loop.time() < deadline:
                await self._look()
                if self._pod is None or self._pod.stage in ("ended", "no_image"):
                    return
                # It had its time, or is of no use: one second for the shim to kill what it started.
                await self._api.delete_pod(self._pod.name, grace_s=1)
                await asyncio.sleep(self._launch.poll_s)

    async def _pause(self) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), self._launch.poll_s)
