"""From what came back to the outcome of a call: excerpt, blob of the whole, secrets taken out (RT-23, RT-66)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Protocol

from pydantic import JsonValue

from fleet.kernel.types import OutcomeKind
from fleet.policy.runs.outcome import ToolOutcome, excerpt_of
from fleet.secrets.port import SecretValue
from fleet.trees.port import BlobStore

_REDACTED = "[REDACTED]"


class SecretSource(Protocol):
    """Gives the values of the references in a document; `fleet.secrets` is one."""

    async def resolve_arguments(
        self, arguments: JsonValue, *, as_role: str, tool: str, op: str
    ) -> Mapping[str, SecretValue]:
        """RFC 6901 pointer -> value. PolicyDenied, NotFound, StoreUnavailable, InvalidInput as the broker raises."""
        ...


def without_secrets(text: str, values: Iterable[SecretValue]) -> str:
    """The text without these values: a server may send back what it was sent."""
    for value in values:
        text = text.replace(value.reveal(), _REDACTED)
    return text


def as_json(value: JsonValue) -> str:
    """One form of a document as text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


async def outcome_of(
    text: str,
    blobs: BlobStore,
    *,
    kind: OutcomeKind = "succeeded",
    reason: str = "ok",
    exit_code: int | None = None,
    content: JsonValue = None,
) -> ToolOutcome:
    """The outcome with this text; the whole of it is a blob when a model is shown less."""
    shown = excerpt_of(text)
    whole = None if shown == text else await blobs.put(text.encode("utf-8", "replace"))
    return ToolOutcome(outcome=kind, reason=reason, exit_code=exit_code, content=content, text=shown, output=whole)


_KINDS: Mapping[str, OutcomeKind] = {"passed": "succeeded", "timeout": "timed_out", "cancelled": "cancelled"}
