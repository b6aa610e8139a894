"""Follow a job on a cluster: its log as it comes, its result, and the exit code that it means."""

from __future__ import annotations

import json
import time
from typing import Any

from fleet.cli.cluster.submit_client import Jobs, JobState
from fleet.cli.exit_codes import BAD_INPUT, DONE, FAILED, MISSING, WAITING
from fleet.cli.output import Output, shown
from fleet.kernel.errors import StoreUnavailable

_RESULT_KEYS = frozenset({"outcome", "error"})
"""One of them is in whatever `fleet.cli.submitted` prints as its result."""
_LIKE_RUN = frozenset({DONE, BAD_INPUT, WAITING, FAILED, MISSING})


def follow(jobs: Jobs, job_id: str, output: Output, *, look_s: float = 0.5, patience_s: float = 60.0) -> int:
    """The exit code of the job, whose log was shown. Of one that is dead or interrupted here that of a failure.

    Args:
        look_s: seconds between two looks.
        patience_s: a cluster that does not answer for so long is given up; the story goes on there. The result of a
            job that is over is waited for as long, where Ray says of the job that it has printed one.

    Raises:
        StoreUnavailable: the cluster does not answer any more, or has forgotten the job.
    """
    log = _Log(output)
    try:
        state = _until_over(jobs, job_id, log, look_s=look_s, patience_s=patience_s)
    except KeyboardInterrupt:
        output.note(
            f"interrupted; the story goes on as job {job_id}: the same command follows it again, and "
            f"`ray job stop {job_id}` ends the following alone"
        )
        return FAILED
    return _told(job_id, state, log.result, output)


def _until_over(jobs: Jobs, job_id: str, log: _Log, *, look_s: float, patience_s: float) -> JobState:
    """How the job ended, with all of its log shown: Ray may say that it is over before it has the last line of it."""
    good = time.monotonic()
    while True:
        try:
            state = jobs.state(job_id)
            # The whole of a long log each time would be most of what the cluster sends.
            text = jobs.log(job_id) if state is None or state.is_over else jobs.seen(job_id)
        except StoreUnavailable as error:
            if time.monotonic() - good > patience_s:
                raise StoreUnavailable(
                    f"job {job_id} cannot be followed any more: {error.message} The story goes on if the cluster does",
                    job=job_id,
                ) from error
        else:
            log.show(text)
            if state is None:
                raise StoreUnavailable(
                    f"job {job_id} is not known to the cluster any more; was its head lost?", job=job_id
                )
            if not state.is_over:
                good = time.monotonic()
            elif log.result is not None or not _has_result(state) or time.monotonic() - good > patience_s:
                log.show(text, is_whole=True)
                return state
        time.sleep(look_s)


def _has_result(state: JobState) -> bool:
    """Whether the command of the job came to its own end, where it prints its result."""
    return state.status == "SUCCEEDED" or state.exit_code in _LIKE_RUN


def _told(job_id: str, state: JobState, result: dict[str, Any] | None, output: Output) -> int:
    if result is not None and _has_result(state):
        output.result(result)
        return DONE if state.status == "SUCCEEDED" else int(state.exit_code or FAILED)
    why = state.message.strip().splitlines()[0][:300] if state.message.strip() else "Ray does not say why"
    output.note(f"[bold red]error[/] job {shown(job_id)} ended without a result ({shown(state.status)}): {shown(why)}")
    output.note("what was started goes on without it; `fleet submit` of the same story tries again")
    output.result({"error": {"code": "job_failed", "job": job_id, "status": state.status, "message": why}})
    return FAILED


class _Log:
    """The log of a job, of which each line is shown once but its result."""

    def __init__(self, output: Output) -> None:
        self._output, self._shown = output, 0
        self.result: dict[str, Any] | None = None

    def show(self, text: str, *, is_whole: bool = False) -> None:
        """What came since the last look; a line that is not ended yet waits unless the text is whole."""
        ended = text.rfind("\n") + 1
        end = len(text) if is_whole or _result_in(text[ended:]) is not None else ended
        for line in text[self._shown : end].splitlines():
            if (result := _result_in(line)) is not None:
                self.result = result
            elif line.strip():
                self._output.note(shown(line))
        self._shown = max(self._shown, end)


def _result_in(line: str) -> dict[str, Any] | None:
    """The result of the command, if the line is one; a log line in the form of JSON is none."""
    if not line.startswith("{"):
        return None
    try:
        document: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return None if _RESULT_KEYS.isdisjoint(document) else document
