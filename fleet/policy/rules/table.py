"""Rules of config/policy.yaml: roles x phases x operations x argument forms, and what a fitting one does.

Of all rules that fit a call the strictest decides:

    deny   refuses it, whatever else fits
    ask    has it wait for a person's recorded yes, when it is allowed as well
    allow  lets it through

Without an allow it is refused, so that neither deny nor ask ever opens anything. Among rules of one effect the first in
the file gives the decision its id. A rule for a role holds for every profile that extends the role.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field

from fleet.kernel.types import Frozen, Phase, Risk
from fleet.policy.arguments import glob_matches, texts_of
from fleet.policy.capabilities import Capability
from fleet.policy.roles import Role

Effect = Literal["deny", "ask", "allow"]
Origin = Literal["caller", "product"]
PHASES: tuple[Phase, ...] = get_args(Phase)
_ANY = "*"
_CALLS = re.compile(r"(\*|[a-z][a-z0-9_]*)(?:\.(\*|[a-z][a-z0-9_]*))?(?::(read|write))?")
_ORIGINS: tuple[Origin, ...] = ("caller", "product")


def is_call_pattern(text: str) -> bool:
    """Whether it is written as operations are named in rules."""
    return _CALLS.fullmatch(text) is not None


class ArgMatch(Frozen):
    """What one argument must look like for a rule to fit: `*` in a glob stops at a slash, `**` does not."""

    matches: tuple[str, ...] = ()
    """One of these globs fits."""
    not_matches: tuple[str, ...] = ()
    """None of these globs fits."""

    def holds(self, value: object, *, is_strict: bool) -> bool:
        """Whether it fits. For a strict rule (deny, ask) one item of a list is enough, or none."""
        texts = texts_of(value)
        fits = [self._holds_for(text) for text in texts]
        return (any(fits) or not fits) if is_strict else (all(fits) and bool(fits))

    def _holds_for(self, text: str) -> bool:
        fits = not self.matches or any(glob_matches(glob, text) for glob in self.matches)
        return fits and not any(glob_matches(glob, text) for glob in self.not_matches)


class Rule(Frozen):
    """One line of the policy."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,59}$")]
    effect: Effect
    calls: Annotated[tuple[str, ...], Field(min_length=1)]
    """Operations: `git.push_branch`, `files.*`, `*`; `:read` or `:write` after it narrows it to such operations."""
    roles: Annotated[tuple[str, ...], Field(min_length=1)]
    phases: Annotated[tuple[Phase | Literal["*"], ...], Field(min_length=1)] = ("*",)
    origin: Literal["caller", "product", "any"] | None = None
    """`caller`: calls of people and agents; `product`: the product's own steps. By default a deny is for `any`."""
    when: dict[str, ArgMatch] = Field(default_factory=dict)
    """Arguments that must have a form; all of them."""
    risk: Risk | None = None
    """Of an `ask` rule: the call is riskier than the operation as such."""
    reason: str = ""
    """What a person reads who is refused or asked."""

    @property
    def origins(self) -> tuple[Origin, ...]:
        """For whose calls the rule is."""
        origin = self.origin or ("any" if self.effect == "deny" else "caller")
        return _ORIGINS if origin == "any" else (origin,)

    def covers(self, capability: Capability) -> bool:
        """Whether it is about this operation."""
        return any(names_call(pattern, capability) for pattern in self.calls)

    def is_for(self, role: Role) -> bool:
        """Whether it is about this role, or about one that the role extends."""
        return _ANY in self.roles or bool({role.name, *role.lineage} & set(self.roles))

    def is_in(self, phase: str) -> bool:
        """Whether it is about calls of this phase."""
        return _ANY in self.phases or phase in self.phases

    def fits(self, capability: Capability, role: Role, phase: str, origin: Origin) -> bool:
        """Whether it is about such a call, its arguments aside."""
        return self.is_in(phase) and origin in self.origins and self.is_for(role) and self.covers(capability)

    def holds(self, args: Mapping[str, object]) -> bool:
        """Whether the arguments have the forms of the rule. What is left out counts as the worse for the caller."""
        is_strict = self.effect != "allow"
        return all(match.holds(args.get(name), is_strict=is_strict) for name, match in self.when.items())


def names_call(pattern: str, capability: Capability) -> bool:
    """Whether the pattern names this operation."""
    match = _CALLS.fullmatch(pattern)
    assert match is not None
    tool, op, access = match.groups()
    fits = tool in (_ANY, capability.tool) and op in (None, _ANY, capability.op)
    return fits and access in (None, capability.declared.access)
