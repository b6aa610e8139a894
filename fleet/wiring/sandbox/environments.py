"""The making of environments on this machine, without a fleet."""

from __future__ import annotations

import ensurepip
import importlib.metadata
import io
import tempfile
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from secrets import token_hex

from fleet.config.environment import config_files
from fleet.config.settings import BubblewrapBackendSettings, FleetSettings
from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.backends.identity import reachable_state_root, toolchain_root
from fleet.sandbox.egress.proxy import EgressSettings
from fleet.sandbox.folders.package_layers import PackageLayers
from fleet.secrets.port import SecretDelivery
from fleet.trees.files import FileBlobStore
from fleet.trees.port import BlobStore
from fleet.wiring.sandbox.backend import make_backend
from fleet.wiring.sandbox.plugins import active_policy
from fleet.workspace.service.environments import EnvironmentService


@dataclass(frozen=True, slots=True)
class Environments:
    """The service, and where trees lie that it is given."""

    service: EnvironmentService
    blobs: BlobStore


def builds_environments(settings: FleetSettings) -> bool:
    """Whether the sandbox of the settings can fetch packages: bubblewrap alone has the way out for it."""
    return isinstance(settings.sandbox.backend, BubblewrapBackendSettings)


@asynccontextmanager
async def open_environments(settings: FleetSettings, egress: EgressSettings) -> AsyncGenerator[Environments]:
    """The service over a sandbox of this machine; layers stay, everything else of it is gone with the block.

    Raises:
        SandboxUnavailable: no sandbox can be built here.
    """
    sandbox, root = settings.sandbox, reachable_state_root(settings.home / "sandbox")
    with tempfile.TemporaryDirectory(prefix="fleet-environment-") as folder:
        blobs = FileBlobStore(Path(folder))
        backend = make_backend(
            sandbox.backend,
            root,
            blobs,
            policy=active_policy(config_files(settings)),
            waived=sandbox.waived,
            disk=sandbox.disk,
            egress=egress,
        )
        health = await backend.health()
        if health.status == "down":
            why = f"{'; '.join(health.unmet)}. {' '.join(health.mend)}"
            raise SandboxUnavailable(f"no sandbox can be built here: {why}", missing=list(health.unmet))

        async def run(spec: RunSpec, secrets: SecretDelivery | None) -> RunResult:
            return await backend.run(spec, run_id=f"environment-{token_hex(8)}", secrets=secrets)

        script = files("fleet.sandbox.folders").joinpath("build_layer.py").read_bytes()
        layers = PackageLayers(toolchain_root(root))
        yield Environments(EnvironmentService(run, blobs, layers, script=script, pip=pip_archive()), blobs)


def pip_archive() -> bytes | None:
    """pip as one archive that Python runs as it is: that beside us, else the one that Python brings along."""
    try:
        parts = importlib.metadata.files("pip") or []
    except importlib.metadata.PackageNotFoundError:
        parts = []
    sources = {
        str(part): Path(str(part.locate())) for part in parts if part.parts[0] == "pip" and part.suffix != ".pyc"
    }
    if not sources:
        bundled = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
        return bundled[-1].read_bytes() if bundled else None
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, source in sorted(sources.items()):
            if source.is_file():
                packed.writestr(zipfile.ZipInfo(name), source.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive.getvalue()
