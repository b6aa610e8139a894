"""A sandbox backend: another backend, behind a list of programs that it refuses to hold."""

from collections.abc import Collection

from pydantic import BaseModel

from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.port import BackendParts, LogSink, SandboxBackend, SandboxBackendPlugin, SandboxHealth
from fleet.secrets.port import SecretDelivery


class RefusingOptions(BaseModel):
    """The options of `sandbox.backend` in fleet.yaml for kind `refusing`."""

    programs: frozenset[str]
    """Programs that no run may start."""


class RefusingBackend:
    """Implements the port SandboxBackend. What it cannot hold as asked it refuses before anything starts."""

    def __init__(self, inner: SandboxBackend, refused: Collection[str]) -> None:
        self._inner, self._refused = inner, frozenset(refused)

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """The inner backend's result; SandboxUnavailable for a refused program."""
        if spec.argv[0] in self._refused:
            raise SandboxUnavailable(f"this node does not run {spec.argv[0]}: use another node", missing=spec.argv[0])
        return await self._inner.run(spec, run_id=run_id, log=log, secrets=secrets)

    async def cancel(self, run_id: str) -> bool:
        """As the inner backend."""
        return await self._inner.cancel(run_id)

    async def health(self) -> SandboxHealth:
        """As the inner backend: this one isolates nothing itself."""
        return await self._inner.health()

    async def sweep(self) -> int:
        """As the inner backend."""
        return await self._inner.sweep()


def make(options: RefusingOptions, parts: BackendParts) -> RefusingBackend:
    """The packaged backend behind the list."""
    return RefusingBackend(parts.packaged(), options.programs)


PLUGIN = SandboxBackendPlugin(name="refusing", options=RefusingOptions, make=make)
