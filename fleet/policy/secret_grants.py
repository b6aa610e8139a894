"""Who may use which secret for what: by role, tool and operation, and nothing else (RT-65)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import PolicyDenied
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen, RoleName
from fleet.policy.catalogue import TOOL_OPS
from fleet.policy.secret_refs import SecretName

SECRET_RULE = "RT-65"
"""Rule id that every denial carries."""

SecretOutcome = Literal["resolved", "cached", "denied", "not_found", "failed"]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class SecretGrant(Frozen):
    """These roles may use this secret in these operations of this tool. Profiles do not inherit a grant."""

    secret: SecretName
    roles: Annotated[frozenset[RoleName], Field(min_length=1)]
    """Roles and profiles, each by name."""
    tool: Word
    ops: Annotated[frozenset[Word], Field(min_length=1)]
    """Operations of the tool, each by name."""

    @model_validator(mode="after")
    def _operations_exist(self) -> Self:
        # Tools of third parties are not in the catalogue; they bring their own list.
        unknown = sorted(self.ops - TOOL_OPS.get(self.tool, self.ops))
        if unknown:
            raise ValueError(f"tool {self.tool} has no operation {', '.join(unknown)}")
        return self

    def covers(self, name: str, *, role: str, tool: str, op: str) -> bool:
        """Whether it permits exactly this use."""
        return name == self.secret and role in self.roles and tool == self.tool and op in self.ops


class SecretPolicy(Frozen):
    """All grants. What no grant covers is denied."""

    grants: tuple[SecretGrant, ...] = ()

    @property
    def digest(self) -> Digest:
        """Names this policy in every denial."""
        return digest_of_json([_plain(grant) for grant in self.grants])

    @property
    def roles(self) -> frozenset[str]:
        """Every role that a grant names."""
        return frozenset(role for grant in self.grants for role in grant.roles)

    @property
    def secrets(self) -> frozenset[str]:
        """Every secret that a grant names."""
        return frozenset(grant.secret for grant in self.grants)

    def allows(self, name: str, *, role: str, tool: str, op: str) -> bool:
        """Whether a grant covers this use."""
        return any(grant.covers(name, role=role, tool=tool, op=op) for grant in self.grants)

    def uses(self, role: str) -> Iterator[SecretGrant]:
        """The grants of one role, for the list that start-up prints."""
        return (grant for grant in self.grants if role in grant.roles)

    def denial(self, name: str, *, role: str, tool: str, op: str) -> PolicyDenied:
        """The error for a use that no grant covers; the same whether the secret exists or not."""
        return PolicyDenied(
            f"role {role!r} may not use secret {name!r} in {tool}.{op}: no grant in config/secrets.yaml covers it; "
            "add one if it should",
            rule_id=SECRET_RULE,
            policy_digest=str(self.digest),
            secret=name,
            role=role,
            tool=tool,
            op=op,
        )


class SecretAccess(Frozen):
    """The audit line of one use: who asked for which secret, and what came of it. Never the value, nor a hash of it."""

    name: SecretName
    provider: str | None
    """Label of the provider that serves the name; None when none does."""
    role: str
    tool: str
    op: str
    outcome: SecretOutcome
    version: str | None = None
    """The provider's own name for this version of the value; None when it has none or nothing was resolved."""
    error: str | None = None
    """Code of the error, None when there is none."""
    at_ms: int
    """UTC milliseconds since the Unix epoch."""


def _plain(grant: SecretGrant) -> dict[str, object]:
    return {"secret": grant.secret, "roles": sorted(grant.roles), "tool": grant.tool, "ops": sorted(grant.ops)}
