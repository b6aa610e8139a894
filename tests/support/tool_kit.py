"""Tool calls on trees for tests of the local tools."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from pydantic import JsonValue

from fleet.kernel.ids import Digest, Principal, RunKey, StoryId
from fleet.policy.rules.calls import Obligations, ToolCall
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.policy.runs.toolchains import Language
from fleet.policy.secret_refs import plan_delivery
from fleet.sandbox.port import SandboxBackend, SandboxHealth
from fleet.secrets.port import SecretDelivery, SecretValue
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore
from fleet.trees.tree import decode_tree

_NUMBERS = count(1)


def call_of(tool: str, op: str, **args: JsonValue) -> ToolCall:
    """A call with these arguments."""
    return ToolCall(tool=tool, op=op, args=args)


def context_of(
    tree: Digest | None = None,
    *,
    key: str | None = None,
    epoch: int = 1,
    effect: str = "PURE",
    timeout_s: int = 60,
    output_limit_kb: int = 256,
    write_paths: tuple[str, ...] = (),
    base_tree: Digest | None = None,
    repository: str | None = None,
    language: Language = "python",
    role: str = "developer",
    packs: tuple[Digest, ...] = (),
) -> ToolContext:
    """What the product knows of a call; every context has a key of its own unless one is given."""
    obligations = Obligations.model_validate(
        {
            "is_recorded": True,
            "effect": effect,
            "timeout_s": timeout_s,
            "output_limit_kb": output_limit_kb,
            "write_paths": write_paths,
        }
    )
    return ToolContext(
        story_id=StoryId("st-tools"),
        principal=Principal(f"agent:{role}-001"),
        role=role,
        phase="BUILD",
        key=RunKey(key or f"{next(_NUMBERS):064x}"),
        epoch=epoch,
        obligations=obligations,
        tree=tree,
        base_tree=base_tree,
        repository=repository,
        packs=packs,
        language=language,
    )


class DirectSandbox:
    """As much of the port Sandbox as tools use, over a backend and without a ledger."""

    def __init__(self, backend: SandboxBackend) -> None:
        self._backend = backend
        self.specs: list[RunSpec] = []

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """Run it; the key is the name of the run."""
        self.specs.append(spec)
        return await self._backend.run(spec, run_id=f"rn-{key[:16]}")

    async def cancel(self, key: RunKey) -> bool:
        """End the run."""
        return await self._backend.cancel(f"rn-{key[:16]}")

    async def health(self) -> SandboxHealth:
        """Of the backend."""
        return await self._backend.health()


class SecretSandbox(DirectSandbox):
    """Hands every secret over as the supervisor does."""

    def __init__(self, backend: SandboxBackend, values: Mapping[str, str]) -> None:
        super().__init__(backend)
        self._own, self._values = backend, values

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        plan = plan_delivery(spec.argv, spec.env)
        value = {n: SecretValue(self._values[n], name=n, provider="table", version=None, ttl_s=60) for n in plan.names}
        delivery = SecretDelivery(
            plan.argv,
            plan.env,
            {name: value[n] for name, n in plan.secret_env.items()},
            {path: value[n] for path, n in plan.secret_files.items()},
        )
        return await self._own.run(spec, run_id=f"rn-{key[:16]}", secrets=delivery)


async def texts_in(blobs: BlobStore, tree: Digest | None) -> Mapping[str, str]:
    """The files of a tree as text."""
    assert tree is not None
    files = decode_tree(await blobs.get(tree)).items()
    return {path: (await blobs.get(e.blob)).decode(errors="replace") for path, e in files if e.mode != "160000"}
