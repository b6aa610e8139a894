"""Jobs of a Ray cluster over its dashboard, with errors of ours and a bound for every answer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import httpx2

from fleet.kernel.errors import InvalidInput, StoreUnavailable, Unauthenticated

_ANSWER_S = 15.0
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
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx2.Client(base_url=self.address, headers=headers, timeout=_ANSWER_S)

    def check(self) -> str:
        """The version of Ray that answers there.

        Raises:
            StoreUnavailable: nothing answers, or something that is no Ray dashboard.
            Unauthenticated: it wants another token.
        """
        answer = self._get("/api/version")
        try:
            return str(answer.json()["ray_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"what answers at {self.address} is no Ray dashboard (status {answer.status_code}); give its address "
                "with --address",
                address=self.address,
            ) from error

    def state(self, job_id: str) -> JobState | None:
        """How the job is; None when there is none of this id. Raises as `check`."""
        answer = self._get(f"/api/jobs/{job_id}")
        if answer.status_code == 404:
            return None
        found = self._json(answer)
        return JobState(str(found["status"]), str(found.get("message") or ""), found.get("driver_exit_code"))

    def log(self, job_id: str) -> str:
        """All that the job has printed so far. Raises as `check`."""
        answer = self._get(f"/api/jobs/{job_id}/logs")
        return "" if answer.status_code == 404 else str(self._json(answer).get("logs") or "")

    def submit(self, job_id: str, *, entrypoint: str, folder: Path, metadata: Mapping[str, str]) -> None:
        """The job is queued, with the files of this folder in its working directory. Raises as `check`."""
        # The client of Ray packs and sends the folder; it reads the token from variables, which it does at import.
        os.environ["RAY_AUTH_MODE"] = "token" if self._token else "disabled"
        os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
        os.environ["RAY_AUTH_TOKEN"] = self._token
        from ray.job_submission import JobSubmissionClient

        runtime = {"working_dir": str(folder), "env_vars": {"PYTHONUNBUFFERED": "1"}}
        try:
            client = JobSubmissionClient(self.address)
            client.submit_job(entrypoint=entrypoint, submission_id=job_id, runtime_env=runtime, metadata=dict(metadata))
        except (RuntimeError, ConnectionError, ValueError) as error:
            raise StoreUnavailable(
                f"the Ray cluster at {self.address} did not take the job: {_last_line(error)}", address=self.address
            ) from error

    def _get(self, path: str) -> httpx2.Response:
        try:
            answer = self._http.get(path)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise StoreUnavailable(
                f"no Ray dashboard answers at {self.address} ({type(error).__name__}); is the cluster up, and its "
                "dashboard reachable from here (`kubectl port-forward`)? Give its address with --address",
                address=self.address,
            ) from error
        if answer.status_code in (401, 403):
            raise Unauthenticated(
                f"the Ray cluster at {self.address} wants {'another' if self._token else 'a'} token; name the file "
                "with --token-file, or set RAY_AUTH_TOKEN",
                address=self.address,
            )
        return answer

    def _json(self, answer: httpx2.Response) -> dict[str, Any]:
        try:
            answer.raise_for_status()
            return answer.json()
        except (httpx2.HTTPError, json.JSONDecodeError) as error:
            raise StoreUnavailable(
                f"the Ray dashboard at {self.address} answers {answer.status_code}: {answer.text[:200]}",
                address=self.address,
            ) from error

    def close(self) -> None:
        """No connection is open."""
        self._http.close()


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else type(error).__name__
