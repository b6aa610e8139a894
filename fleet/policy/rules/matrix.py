"""What each role may call in each phase, before arguments are known (RT-35, RT-36)."""

from __future__ import annotations

from fleet.kernel.types import Phase
from fleet.policy.capabilities import Capability
from fleet.policy.roles import Role
from fleet.policy.rules.checks import role_refusal
from fleet.policy.rules.config import Policy


def offered(policy: Policy, role: str, *, phase: Phase, is_read_only: bool = False) -> tuple[Capability, ...]:
    """The operations that a model or session in this role is told about, sorted by name (RT-35, RT-68).

    The rest is refused anyway; what is offered may still be refused for its arguments, or need an approval.
    """
    named_role = policy.roles.role(role)
    names = sorted(policy.capabilities)
    return tuple(
        capability
        for capability in (policy.capabilities[name] for name in names)
        if not (is_read_only and capability.is_write) and _standing(policy, named_role, capability, phase) != "deny"
    )


def reaching(policy: Policy, role: str, *, phase: Phase) -> tuple[tuple[Capability, tuple[str, ...]], ...]:
    """The operations with which an engineer at work looks at something outside, each with the names that it may use.

    They change nothing, nobody is asked for them, and what they reach is listed under `targets` (RT-37).
    """
    found: list[tuple[Capability, tuple[str, ...]]] = []
    for capability in offered(policy, role, phase=phase):
        declared = capability.declared
        kinds = {spec.target for spec in capability.args.values() if spec.target is not None}
        is_look = declared.effect == "PURE" and declared.side_effects == "none" and declared.approval == "never"
        if not is_look or declared.scope not in ("external", "cluster") or len(kinds) != 1:
            continue
        if names := policy.targets.names(next(iter(kinds))):
            found.append((capability, names))
    return tuple(found)


def permissions(policy: Policy) -> dict[str, dict[str, dict[str, str]]]:
    """Role -> phase -> operation -> `allow` or `ask`, for calls of people and agents (RT-36).

    A trailing `?` says that arguments decide as well. What is not listed is denied.
    """
    matrix: dict[str, dict[str, dict[str, str]]] = {}
    for name, role in sorted(policy.roles.roles.items()):
        for phase in sorted(role.phases):
            row = {c.name: _standing(policy, role, c, phase) for c in policy.capabilities.values()}
            matrix.setdefault(name, {})[phase] = {call: row[call] for call in sorted(row) if row[call] != "deny"}
    return matrix


def _standing(policy: Policy, role: Role, capability: Capability, phase: Phase) -> str:
    """What rules say about such calls of this role, before arguments are known."""
    if role_refusal(role, capability, phase) is not None:
        return "deny"
    fitting = [rule for rule in policy.rules if rule.fits(capability, role, phase, "caller")]
    effects = {rule.effect for rule in fitting if not rule.when}
    possible = {rule.effect for rule in fitting}
    if "deny" in effects or "allow" not in possible:
        return "deny"
    if "ask" in effects or capability.declared.approval == "always":
        return "ask"
    return "allow" if possible == {"allow"} and "allow" in effects else "allow?"
