"""Jobs of a Ray cluster over its dashboard, with errors of ours and a bound for every answer."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fleet.kernel.errors import InvalidInput, StoreUnavailable, Unauthenticated
from fleet.web.answers import Unanswered, document_of
from fleet.web.http import HttpAnswer, HttpExchanges

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_ANSWER_S, _MOST_BYTES = 15.0, 256 << 20
_NO_AGENT = r"(?s).*No available agent to submit job"
"""What a cluster says that has just come up: the agent of its head takes no job yet."""
_AGENT_S = 120.0
_ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


class JobState(NamedTuple):
    """What Ray says of a job."""

    status: str
    message: str
    exit_code: int | None
    """Of its command; None while it runs, and when it never ran."""

    @property
    def is_over(self) -> bool:
        """It runs no more."""
        return self.status in _ENDED


def read_ray_token(given: Path | None, environ: Mapping[str, str]) -> str:
    """Ray's token from a file that is given, RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH; empty when there is none.

    Raises:
        InvalidInput: the file cannot be read.
    """
    named = given or (Path(environ["RAY_AUTH_TOKEN_PATH"]) if environ.get("RAY_AUTH_TOKEN_PATH") else None)
    if given is None and environ.get("RAY_AUTH_TOKEN"):
        return environ["RAY_AUTH_TOKEN"].strip()
    if named is None:
        return ""
    try:
        return named.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the token of Ray in {named}: {error}", field="token_file") from error


class Jobs(Protocol):
    """Jobs of a cluster."""

    def state(self, job_id: str) -> JobState | None:
        """How the job is; None when there is none of this id. StoreUnavailable when nobody answers."""
        ...

    def log(self, job_id: str) -> str:
        """All that the job has printed so far. StoreUnavailable when nobody answers."""
        ...

    def seen(self, job_id: str) -> str:
        """What has come of the log of a running job, which may be less than `log`. StoreUnavailable as there."""
        ...

    def submit(self, job_id: str, *, entrypoint: str, folder: Path, metadata: Mapping[str, str]) -> None:
        """The job is queued, with the files of this folder in its working directory.

        Raises:
            StoreUnavailable: the cluster did not take it, or the answer was lost.
        """
        ...


class JobClient:
    """Jobs over the dashboard of a Ray cluster."""

    def __init__(self, address: str, token: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise InvalidInput(
                f"{address!r} is no address of a Ray dashboard: give http://HOST:8265 (not ray:// and not the port of "
                "Ray itself)",
                field="address",
            )
        self.address, self._token = address.rstrip("/"), token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # As `ray job submit`, which takes them as well.
        self._http = HttpExchanges(timeout_s=_ANSWER_S, uses_proxies=True)
        self._tail: _Tail | None = None

    def check(self) -> str:
        """The version of Ray that answers there.

        Raises:
            StoreUnavailable: nothing answers, or something that is no Ray dashboard.
            Unauthenticated: it wants another token.
        """
        answer = self._get("/api/version")
        if version := (document_of(answer.data) or {}).get("ray_version"):
            return str(version)
        raise StoreUnavailable(
            f"what answers at {self.address} is no Ray dashboard (status {answer.status}); give its address with "
            "--address",
            address=self.address,
        )

    def state(self, job_id: str) -> JobState | None:
        """How the job is; None when there is none of this id. Raises as `check`."""
        answer = self._get(f"/api/jobs/{job_id}")
        if answer.status == 404:
            return None
        document = self._json(answer)
        return JobState(str(document["status"]), str(document.get("message") or ""), document.get("driver_exit_code"))

    def log(self, job_id: str) -> str:
        """All that the job has printed so far. Raises as `check`."""
        answer = self._get(f"/api/jobs/{job_id}/logs")
        return "" if answer.status == 404 else str(self._json(answer).get("logs") or "")

    def submit(self, job_id: str, *, entrypoint: str, folder: Path, metadata: Mapping[str, str]) -> None:
        """The job is queued, with the files of this folder in its working directory. Raises as `check`."""
        from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random

        again = Retrying(
            retry=retry_if_exception_message(match=_NO_AGENT),
            wait=wait_random(0.5, 1.5),
            stop=stop_after_delay(_AGENT_S),
            reraise=True,
        )
        runtime = {"working_dir": str(folder), "env_vars": {"PYTHONUNBUFFERED": "1"}}
        given = {"submission_id": job_id, "runtime_env": runtime, "metadata": dict(metadata)}
        try:
            again(self._ray().submit_job, entrypoint=entrypoint, **given)
        except (RuntimeError, ConnectionError, ValueError) as error:
            raise StoreUnavailable(
                f"the Ray cluster at {self.address} did not take the job: {_last_line(error)}", address=self.address
            ) from error

    def seen(self, job_id: str) -> str:
        """What has come of the log of a running job, or all of it where it cannot come by itself. Raises as `check`."""
        if self._tail is None or self._tail.job_id != job_id:
            self._tail = _Tail(self._ray, job_id)
        if self._tail.has_failed:
            text = self.log(job_id)
            self._tail.start()
            return text
        return self._tail.text

    def _ray(self) -> JobSubmissionClient:
        # A header counts at once. Without a token Ray asks variables, which it reads at its first import in a process.
        os.environ["RAY_AUTH_MODE"] = "token" if self._token else "disabled"
        os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
        os.environ["RAY_AUTH_TOKEN"] = self._token
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self.address, headers=dict(self._headers))

    def _get(self, path: str) -> HttpAnswer:
        asking = self._http.ask("GET", self.address + path, headers=self._headers, most=_MOST_BYTES)
        try:
            answer = asyncio.run(asking)
        except Unanswered as error:
            raise StoreUnavailable(
                f"no Ray dashboard answers at {self.address} ({error.kind}); is the cluster up, and its "
                "dashboard reachable from here (`kubectl port-forward`)? Give its address with --address",
                address=self.address,
            ) from error
        if answer.status in (401, 403):
            raise Unauthenticated(
                f"the Ray cluster at {self.address} wants {'another' if self._token else 'a'} token; name the file "
                "with --token-file, or set RAY_AUTH_TOKEN",
                address=self.address,
            )
        return answer

    def _json(self, answer: HttpAnswer) -> dict[str, Any]:
        document = document_of(answer.data)
        if answer.is_success and document is not None:
            return document
        text = answer.data[:200].decode("utf-8", "replace")
        raise StoreUnavailable(
            f"the Ray dashboard at {self.address} answers {answer.status}: {text}", address=self.address
        )


class _Tail:
    """The log of one job from its first line on, as it is printed; received in a thread."""

    def __init__(self, connect: Callable[[], JobSubmissionClient], job_id: str) -> None:
        self.job_id, self._connect = job_id, connect
        self.start()

    def start(self) -> None:
        """The log is received from its beginning."""
        self._parts: list[str] = []
        self.has_failed = False
        # A daemon, because its connection is quiet for as long as the job is.
        threading.Thread(target=self._receive, name="job-log", daemon=True).start()

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(self._parts)

    def _receive(self) -> None:
        # Whoever follows the job asks for its state as well, and is told there what is wrong.
        with suppress(Exception):
            asyncio.run(self._received())
            return
        self.has_failed = True

    async def _received(self) -> None:
        async for part in self._connect().tail_job_logs(self.job_id):
            self._parts.append(part)
        # Ray's client has closed its connection, which its transport does in the next turn of the loop.
        await asyncio.sleep(0)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__
