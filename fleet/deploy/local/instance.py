"""One deployed program: a run of the sandbox that is kept going, and asked what it sees of the program."""

from __future__ import annotations

import asyncio
import contextlib
import json
from itertools import count
from math import inf
from typing import Any, NamedTuple

from fleet.deploy.port import Placed
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError
from fleet.policy.deploy import HealthCheckSpec, HealthSample
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import Grantee, Limits, RunResult, RunSpec
from fleet.sandbox.port import ServingBackend
from fleet.sandbox.service.runs import RunSecrets

_SHIM = ("/toolchain/bin/python", "-IS", "/fleet/inside/serve_app.py")
GRANTEE = Grantee(role="devops", tool="environment", op="start")
"""For whom its secrets have to be granted: it is started again by the fleet itself, long after its story is over."""
_DOOR = ".fleet-door"
"""The socket of the shim, in the workspace."""
_LONGEST_RUN_S = 14_400
"""A run of the sandbox may not take longer (RC-6): the program is started again then."""
_ANSWER_S = 45.0
"""A look takes 30 s at most."""
_LOOK_AGAIN_S = 0.2
_SOON_S = 5.0
"""Whoever only shows how things are waits so long for an answer."""
_COMES_BACK_S = 60.0
"""A look at a program that was just started again waits so long for it."""
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_DETAIL_CHARS = 1_000
_FAILED = inf
"""The number of a look that could not be taken: over every threshold."""


class CheckReading(NamedTuple):
    """What one look found; `value` None when it could not be taken."""

    value: float | None
    detail: str


class Instance:
    """One program, from `begin` to `end`. One that was ready once is started again whenever it ends.

    Args:
        secrets: gives it those that its target names, anew at each start.
        was_ready: it ran before this process did, so that its first end is no failed deployment.
    """

    def __init__(
        self, backend: ServingBackend, clock: Clock, placed: Placed, *, secrets: RunSecrets, was_ready: bool = False
    ) -> None:
        self.placed, self._secrets = placed, secrets
        self._backend, self._clock, self._was_ready = backend, clock, was_ready
        self._numbers, self._runs = count(1), count(1)
        self._waiting: dict[int, asyncio.Future[CheckReading]] = {}
        self._run_id, self._is_up = "", False
        self._why = "it has not started yet"
        self._task: asyncio.Task[None] | None = None

    async def require_secrets(self) -> None:
        """Returns when it can be given its secrets now.

        Raises PolicyDenied where no grant covers one, NotFound where nobody has it, StoreUnavailable in an outage.
        """
        self._secrets.check(self._spec)
        await self._secrets.delivery(self._spec)

    def begin(self) -> None:
        """It is being started, and kept going from here on."""
        self._task = asyncio.create_task(self._keep(), name=f"deployment {self.placed.key[:12]}")

    async def ready(self, *, at_most_s: float = inf) -> str | None:
        """None once it answers; else why it does not, after the time that its target gives it."""
        target = self.placed.target
        until = self._clock.monotonic_ms() + 1000 * min(target.ready.within_s, at_most_s)
        while self._task is not None and not self._task.done():
            seen = await self._look({"op": "http", "path": target.ready.path})
            if seen.value == 0:
                self._was_ready = self._is_up = True
                return None
            if self._clock.monotonic_ms() >= until:
                return f"not ready within {target.ready.within_s} s: {seen.detail}"
            await self._clock.sleep(_LOOK_AGAIN_S)
        return self._why

    async def sample(self, check: HealthCheckSpec) -> HealthSample:
        """One look of the check; of a program that is just being started again, once it is there."""
        if self._was_ready and not self._is_up:
            await self.ready(at_most_s=_COMES_BACK_S)
        seen = await self._look(_request(check))
        return HealthSample(value=_failed(check) if seen.value is None else seen.value, detail=seen.detail)

    async def answers(self) -> bool:
        """Whether it answers the path of its target's `ready` now, at once or within a few seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SOON_S):
                return (await self._look({"op": "http", "path": self.placed.target.ready.path})).value == 0
        return False

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the program; None while it does not run."""
        return await self._backend.connect(self._run_id, _DOOR) if self._run_id else None

    async def end(self) -> None:
        """It has ended, and does not come back."""
        task, self._task = self._task, None
        if task is None:
            return
        with contextlib.suppress(FleetError):
            if self._run_id:
                await self._backend.write_stdin(self._run_id, b"", is_last=True)
        # Cancelled, the run kills all its processes before it returns.
        _, late = await asyncio.wait({task}, timeout=self._limits.grace_s)
        for one in late:
            one.cancel()
        await asyncio.gather(task, return_exceptions=True)

    # The run.

    @property
    def _limits(self) -> Limits:
        memory = self.placed.target.memory_mb << 20
        return Limits(overall_s=_LONGEST_RUN_S, idle_s=_LONGEST_RUN_S, memory_bytes=memory, grace_s=5)

    @property
    def _spec(self) -> RunSpec:
        target = self.placed.target
        # The shim is told the names alone; it finds the values where the program does, to keep them to itself.
        hidden = ("--hide", ",".join(sorted(target.secrets))) if target.secrets else ()
        return RunSpec(
            argv=(*_SHIM, *hidden, str(target.port), *target.argv),
            tree=self.placed.tree,
            env={**target.env, **target.secrets},
            grantee=GRANTEE if target.secrets else None,
            limits=self._limits,
            toolchain=self.placed.toolchain,
            interactive=True,
        )

    async def _keep(self) -> None:
        failures = 0
        while self._task is not None:
            began = self._clock.monotonic_ms()
            self._why = await self._run_once()
            if not self._was_ready:
                return  # a new deployment that does not even stay up has failed
            is_well = self._clock.monotonic_ms() - began > 1000 * _PAUSES_S[-1]
            failures = 0 if is_well else min(failures + 1, len(_PAUSES_S) - 1)
            await self._clock.sleep(_PAUSES_S[failures])

    async def _run_once(self) -> str:
        """Why the run ended."""
        run_id = f"{self.placed.key}-{next(self._runs)}"
        said: list[str] = []
        try:
            self._secrets.check(self._spec)
            given = await self._secrets.delivery(self._spec)
            self._run_id = run_id
            result = await self._backend.run(
                self._spec, run_id=run_id, log=lambda line: self._heard(line, said), secrets=given
            )
        except FleetError as error:
            return error.message
        finally:
            self._run_id, self._is_up = "", False
            self._nobody_answers()
        return said[-1] if said else _ended(result)

    def _heard(self, line: LogLine, said: list[str]) -> None:
        # What the program prints does not come here, but it may write to the descriptors of its parent all the same.
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            message: dict[str, Any] = json.loads(line.line)
            detail = self._secrets.plain(str(message.get("detail", "")))[:_DETAIL_CHARS]
            if "ended" in message:
                said.append(f"the program ended with {int(message['ended'])}: {detail}")
            waiting = self._waiting.pop(int(message.get("id", 0)), None)
            if waiting is not None and not waiting.done():
                value = message.get("value")
                waiting.set_result(CheckReading(None if value is None else float(value), detail))

    def _nobody_answers(self) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(CheckReading(None, "the program ended"))
        self._waiting.clear()

    async def _look(self, request: dict[str, Any]) -> CheckReading:
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            line = json.dumps({"id": number, **request}).encode() + b"\n"
            if not self._run_id or not await self._backend.write_stdin(self._run_id, line):
                return CheckReading(None, self._why if not self._run_id else "it is being started")
            async with asyncio.timeout(_ANSWER_S):
                return await answer
        except TimeoutError:
            return CheckReading(None, f"no answer within {_ANSWER_S:g} s")
        except FleetError as error:
            return CheckReading(None, error.message)
        finally:
            self._waiting.pop(number, None)


def _request(check: HealthCheckSpec) -> dict[str, Any]:
    match check.kind:
        case "http":
            return {"op": "http", "path": check.target}
        case "metric":
            path, _, name = check.target.partition("#")
            return {"op": "metric", "path": path, "name": name}
        case "command":
            return {"op": "command", "argv": list(check.argv)}
        case "log_pattern":
            return {"op": "log", "name": check.name, "pattern": check.target}


def _failed(check: HealthCheckSpec) -> float:
    """A look that could not be taken is a failed one of those that count failures, and breaches the others."""
    return 1.0 if check.kind in ("http", "command") else _FAILED


def _ended(result: RunResult) -> str:
    said = (result.stderr.text or result.stdout.text).strip()[-_DETAIL_CHARS:]
    return f"its sandbox ended: {result.reason}, exit code {result.exit_code}; {said}"
