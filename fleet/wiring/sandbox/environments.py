"""The making of environments on the node that has the runs of stories."""

from __future__ import annotations

import asyncio
import ensurepip
import importlib.metadata
import io
import os
import tempfile
import zipfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from secrets import token_hex

from fleet.config.settings import BubblewrapBackendSettings
from fleet.kernel.errors import SandboxUnavailable
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.policy.runs.toolchains import Language
from fleet.sandbox.backends.identity import process_name, toolchain_root
from fleet.sandbox.folders.package_layers import LayerLimits, PackageLayers
from fleet.secrets.port import SecretDelivery
from fleet.trees.files import FileBlobStore
from fleet.trees.port import BlobStore
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.sandbox.backend import make_backend
from fleet.wiring.sandbox.plugins import active_policy
from fleet.wiring.sandbox.registries import host_registries
from fleet.workspace.service.environments import EnvironmentService, NodeEnvironments, RegistryAccess

_FOLDER = "environments"
"""Below the state root: what runs have there that fetch packages and try tests."""


def make_environments(endpoints: Endpoints, root: Path, fleet: BlobStore) -> NodeEnvironments:
    """What makes the environments of this node; bubblewrap alone has the way out for it.

    Layers lie with the toolchains of the node. Whatever else is needed to make one is gone once it is made.

    Args:
        root: state root of the node's sandbox.
        fleet: has the trees of stories.
    """
    kind = endpoints.sandbox_backend.kind
    makes = isinstance(endpoints.sandbox_backend, BubblewrapBackendSettings)

    @asynccontextmanager
    async def opened(language: Language) -> AsyncGenerator[tuple[EnvironmentService, RegistryAccess]]:
        given = endpoints.sandbox_registries.get(language)
        registries = await asyncio.to_thread(host_registries, language, given, os.environ, Path.home())
        # Named as folders of runs are: of a process that was killed meanwhile the next one removes it.
        runs = root / _FOLDER / "runs"
        await asyncio.to_thread(runs.mkdir, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{process_name(os.getpid())}-", dir=runs) as folder:
            blobs = _OwnFirst(FileBlobStore(Path(folder)), fleet)
            backend = make_backend(
                endpoints.sandbox_backend,
                root,
                blobs,
                policy=active_policy(endpoints.files),
                waived=endpoints.sandbox_waived,
                own_root=root / _FOLDER,
                disk=endpoints.sandbox_disk,
                egress=registries.egress,
            )
            await backend.sweep()
            health = await backend.health()
            if health.status == "down":
                why = f"{'; '.join(health.unmet)}. {' '.join(health.mend)}"
                raise SandboxUnavailable(f"no sandbox can be built here: {why}", missing=list(health.unmet))

            async def run(spec: RunSpec, secrets: SecretDelivery | None) -> RunResult:
                return await backend.run(spec, run_id=f"environment-{token_hex(8)}", secrets=secrets)

            script = files("fleet.sandbox.folders").joinpath("build_layer.py").read_bytes()
            disk = endpoints.sandbox_disk
            layers = PackageLayers(toolchain_root(root), LayerLimits(disk.layers_bytes, disk.layers_idle_s))
            pip = await asyncio.to_thread(pip_archive)
            yield EnvironmentService(run, blobs, layers, script=script, pip=pip), registries.access

    return NodeEnvironments(opened, refusal="" if makes else f"sandbox backend {kind} makes no environments")


class _OwnFirst:
    """Blobs of a fleet beside those of one making, which end with it: archives of hundreds of megabytes."""

    def __init__(self, own: BlobStore, fleet: BlobStore) -> None:
        self._own, self._fleet = own, fleet

    async def put(self, data: bytes) -> Digest:
        """See the port; it is kept for as long as the making lasts."""
        return await self._own.put(data)

    async def get(self, digest: Digest) -> bytes:
        """See the port."""
        return await (self._own if await self._own.has(digest) else self._fleet).get(digest)

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """See the port."""
        own = {digest: await self._own.get(digest) for digest in set(digests) if await self._own.has(digest)}
        others = [digest for digest in dict.fromkeys(digests) if digest not in own]
        held = own | dict(zip(others, await self._fleet.get_many(others), strict=True))
        return [held[digest] for digest in digests]

    async def has(self, digest: Digest) -> bool:
        """See the port."""
        return await self._own.has(digest) or await self._fleet.has(digest)


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
