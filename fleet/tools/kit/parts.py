"""What a tool is built from: the only things of the product that a tool ever sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import JsonValue

from fleet.forge.service import ChangeTarget
from fleet.kernel.clock import Clock
from fleet.policy.targets import Targets
from fleet.sandbox.port import Sandbox
from fleet.secrets.port import SecretValue
from fleet.tools.port import Tool
from fleet.trees.port import BlobStore


class SecretResolver(Protocol):
    """The values of secrets, each use decided and audited there (RT-65); SecretBroker is one."""

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The present value for this use. Raises PolicyDenied, InvalidInput, NotFound, StoreUnavailable."""
        ...

    async def resolve_arguments(
        self, arguments: JsonValue, *, as_role: str, tool: str, op: str
    ) -> Mapping[str, SecretValue]:
        """RFC 6901 pointer -> value, of every reference in the arguments. Raises as `resolve`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolParts:
    """Handed to every tool when it is built."""

    sandbox: Sandbox
    """Runs commands on trees. Derive each key from `ToolContext.key` (`run_key`)."""
    blobs: BlobStore
    """Trees, files, outputs and artifacts by digest."""
    clock: Clock
    targets: Targets
    """What config/policy.yaml lets tools address outside."""
    secrets: SecretResolver | None = None
    """None where no secrets are configured."""
    change_target: ChangeTarget | None = None
    """Where agents ask for change requests; None where no forge is configured."""


ToolFactory = Callable[[ToolParts], Tool]
"""Builds a tool; imports nothing and connects nowhere before its first call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPlugin:
    """What an entry point of the group `swe_fleet.tools` names (RT-69)."""

    name: str
    """Of the tool; no shipped tool and no other plug-in has it."""
    declaration: Sequence[Mapping[str, Any]] = ()
    """As an entry below `tools:` of config/policy.yaml, in full (RT-20); empty where that file declares the tool."""
    make: ToolFactory
