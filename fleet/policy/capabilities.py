"""What a tool operation is, declared before it is called: effect, risk, reach, approval, typed arguments (RT-20)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleet.kernel.types import EffectClass, Frozen, Rigor, Risk

MAX_GRANT_S = 900
"""Seconds for which a person's yes to one tool call holds (LC-71)."""
_REQUEST_S = 3600

PRODUCT_OPS: Mapping[str, frozenset[str]] = {
    "model": frozenset(
        {
            "act",
            "advise",
            "change",
            "critique",
            "derive",
            "document",
            "draft",
            "engineer",
            "propose",
            "repair",
            "review",
            "summarize",
        }
        | {"tests", "vote"}
    ),
    "tests": frozenset({"pipeline"}),
    "environment": frozenset({"start", "rollback", "observe"}),
    "packages": frozenset({"fetch"}),
}
"""Operations that only the product's own steps use: no role can be granted them, no caller can name them."""

ArgType = Literal["text", "line", "path", "url", "choice", "integer", "boolean", "argv", "lines", "paths", "object"]
Target = Literal["host", "repository", "database", "image", "namespace", "chart", "mcp_server"]
_RISKS: tuple[Risk, ...] = ("low", "medium", "high")


class ArgSpec(Frozen):
    """One typed argument. `path` is short for `{type: path}`, `optional path` for one that may be left out."""

    type: ArgType
    """`line` has no newline, `argv` is a program and its arguments, `lines` and `paths` are lists of theirs."""
    required: bool = True
    choices: tuple[str, ...] = ()
    """What a `choice` may be."""
    pattern: str | None = None
    """Expression that every text must match as a whole."""
    max_length: Annotated[int, Field(ge=1, le=4 << 20)] = 4096
    """Characters of one text."""
    max_items: Annotated[int, Field(ge=1, le=4096)] = 64
    """Items of a list."""
    minimum: int | None = None
    maximum: int | None = None
    allowed_prefix: tuple[str, ...] = ()
    """One of them begins every text; none means any."""
    denied_prefix: tuple[str, ...] = ()
    """None of them begins a text: options that start programs, loader variables (RT-56)."""
    deny_characters: str = ""
    target: Target | None = None
    """The text names something outside that must stand in the lists under `targets` (step 10 of RT-30)."""

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return {"type": value.removeprefix("optional "), "required": not value.startswith("optional ")}

    @model_validator(mode="after")
    def _check(self) -> ArgSpec:
        if (self.type == "choice") != bool(self.choices):
            raise ValueError("choices are for an argument of type choice, which needs them")
        return self


class Declaration(Frozen):
    """Operations of one tool that have everything in common but their arguments."""

    ops: Annotated[dict[str, dict[str, ArgSpec]], Field(min_length=1)]
    access: Literal["read", "write"]
    """`read` reads only and runs no project code; everything else is `write`."""
    scope: Literal["workspace", "repo", "cluster", "external"]
    side_effects: Literal["none", "reversible", "irreversible"]
    effect: EffectClass
    risk: Risk
    approval: Literal["never", "by_rule", "always"]
    approver_role: str | None = None
    """Who may approve; by default po for external, devops for cluster, architect for the rest (RT-22)."""
    delegable_up_to: Rigor | None = None
    """Up to which rigor an agent may approve under a delegation; none means that only a person may."""
    idempotency: Literal["guaranteed", "best_effort", "none"]
    """`guaranteed`: the receiver accepts our key."""
    timeout_s: Annotated[int, Field(ge=1, le=14_400)]
    output_limit_kb: Annotated[int, Field(ge=1, le=65_536)]
    network: Literal["none", "allow_list"] = "none"
    preconditions: tuple[str, ...] = ()
    postconditions: tuple[str, ...] = ()
    cost_hint: Literal["free", "cpu", "tokens"] = "free"


# Source: RT-20.
class Capability(Frozen):
    """One declared operation."""

    tool: str
    op: str
    args: dict[str, ArgSpec]
    declared: Declaration

    @property
    def name(self) -> str:
        """`<tool>.<op>`."""
        return f"{self.tool}.{self.op}"

    @property
    def is_write(self) -> bool:
        """Whether the operation writes or runs project code."""
        return self.declared.access == "write"

    @property
    def approver_role(self) -> str:
        """The role that approves a call (RT-22)."""
        by_scope = {"external": "po", "cluster": "devops"}
        return self.declared.approver_role or by_scope.get(self.declared.scope, "architect")

    def gate(self, *, risk: Risk | None = None) -> ToolGate:
        """The gate of this operation; a rule may say that a call is riskier than the operation as such."""
        actual = _RISKS[max(_RISKS.index(self.declared.risk), _RISKS.index(risk or "low"))]
        is_final = self.declared.side_effects == "irreversible" and actual == "high"
        return ToolGate(
            name=gate_name(self.tool, self.op),
            role=self.approver_role,
            risk=actual,
            delegable_up_to=None if is_final else self.declared.delegable_up_to,
        )


@dataclass(frozen=True, slots=True)
class ToolGate:
    """Who may approve a tool call (LC-71): a person, for this one request, once, for 900 s."""

    name: str
    role: str
    risk: Risk
    delegable_up_to: Rigor | None
    """None: only a person, never under a delegation; so it is for all that is irreversible and of high risk."""
    actor: Literal["human"] = "human"
    request_ttl_s: int = _REQUEST_S
    grant_ttl_s: int = MAX_GRANT_S


def gate_name(tool: str, op: str) -> str:
    """`tool:<tool>.<op>`, the name under which approvals of this operation are recorded."""
    return f"tool:{tool}.{op}"


def contradictions(declared: Declaration) -> Iterator[str]:
    """Every way in which a declaration contradicts itself (RT-21)."""
    if (declared.side_effects == "none") != (declared.effect == "PURE"):
        yield f"side_effects {declared.side_effects} and effect {declared.effect}: none and PURE go together"
    if declared.side_effects == "irreversible" and declared.effect != "UNSAFE" and declared.idempotency != "guaranteed":
        yield "irreversible is UNSAFE unless the receiver accepts our key (idempotency: guaranteed)"
    if declared.access == "read" and declared.side_effects != "none":
        yield "an operation that reads only has no side effects"
    reaches_out = declared.scope in ("cluster", "external") and declared.side_effects != "none"
    if reaches_out and declared.approval == "never":
        yield f"side effects on scope {declared.scope} need approval by_rule or always"
    if declared.risk == "high" and declared.approval != "always":
        yield "risk high needs approval always"
    if declared.network != "none" and declared.scope not in ("external", "repo"):
        yield f"network is for scope external or repo, not for {declared.scope}"
    if declared.delegable_up_to and declared.side_effects == "irreversible" and declared.risk == "high":
        yield "what is irreversible and of high risk can never be delegated"
