"""The steps of RT-30 that refuse a tool call before anybody is asked, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Phase
from fleet.policy.addresses import host_is_listed
from fleet.policy.arguments import argument_problems, glob_matches, host_of, path_problems, texts_of
from fleet.policy.capabilities import ArgSpec, Capability
from fleet.policy.commands.git import git_target, parse_git_address
from fleet.policy.roles import Role, ToolGrant
from fleet.policy.rules.calls import CallFacts, ToolCall
from fleet.policy.rules.config import Policy
from fleet.policy.rules.table import Rule

PREVIEW_HOST = "preview"
"""Name of the story's own preview, which tools inside the workspace may always address."""


class Refusal(NamedTuple):
    """The failing step: its rule id and what to tell."""

    rule_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CallCase:
    """A call whose principal, role and operation exist."""

    call: ToolCall
    facts: CallFacts
    policy: Policy
    role: Role
    capability: Capability
    grant: ToolGrant = field(default=ToolGrant(ops=frozenset()))
    """What the role has of the tool; empty for a step of the product."""

    @property
    def is_callers(self) -> bool:
        """Whether a person or agent calls, not the product itself."""
        return self.facts.origin == "caller"

    def rules(self, *effects: str) -> Iterator[Rule]:
        """Rules of these effects that fit, arguments aside, in the order of the file."""
        fitting = self.policy.fitting(self.capability, self.role, self.facts.phase, self.facts.origin)
        return (rule for rule in fitting if rule.effect in effects)


def open_case(call: ToolCall, facts: CallFacts, policy: Policy) -> CallCase | Refusal:
    """Steps 1 to 3 of RT-30."""
    if not facts.is_enabled:
        return Refusal("principal_disabled", f"{facts.principal} is not authenticated or not enabled")
    role = policy.roles.roles.get(facts.role)
    if role is None:
        return Refusal("role_unknown", f"role {facts.role!r} is not declared")
    if facts.role not in facts.roles_held:
        return Refusal("role_not_held", f"{facts.principal} does not hold role {facts.role}")
    if role.actor == "human" and not facts.principal.is_human:
        return Refusal("role_not_held", f"role {role.name} is for people, and {facts.principal} is none")
    capability = policy.capability(call.tool, call.op)
    if capability is None:
        return Refusal("op_undeclared", f"{call.tool}.{call.op} is declared nowhere")
    if facts.origin == "product":
        return CallCase(call, facts, policy, role, capability)
    return CallCase(call, facts, policy, role, capability, role.tools.get(call.tool, ToolGrant(ops=frozenset())))


def role_refusal(role: Role, capability: Capability, phase: Phase) -> Refusal | None:
    """Why the role itself may not call this in the phase, whatever the rules say."""
    if not role.may_call(capability.tool, capability.op):
        return Refusal("op_not_granted", f"role {role.name} has no {capability.name}")
    if phase not in role.phases:
        return Refusal("phase_denied", f"role {role.name} does not work in phase {phase}")
    if capability.declared.scope == "cluster" and role.scope != "operations":
        return Refusal(
            "scope_denied", f"{capability.name} is for roles of scope operations, {role.name} is {role.scope}"
        )
    return None


def _check_allowlist(case: CallCase) -> Refusal | None:
    """Step 4."""
    if case.facts.is_read_only and case.capability.is_write:
        return Refusal("read_only", f"this step may only read, and {case.capability.name} does more")
    if case.is_callers and not case.role.may_call(case.call.tool, case.call.op):
        return Refusal("op_not_granted", f"role {case.role.name} has no {case.capability.name}")
    return None


def _check_phase(case: CallCase) -> Refusal | None:
    """Steps 5 and 6."""
    facts, name = case.facts, case.capability.name
    if facts.story != "active":
        return Refusal("story_halted", f"the story is {facts.story}")
    if case.is_callers and (refusal := role_refusal(case.role, case.capability, facts.phase)):
        return refusal
    if denied := next((rule for rule in case.rules("deny") if not rule.when), None):
        return Refusal(denied.id, denied.reason or f"rule {denied.id} denies {name}")
    if next(case.rules("allow"), None) is None:
        elsewhere = any(
            r.effect == "allow" and r.covers(case.capability) and r.is_for(case.role) and facts.origin in r.origins
            for r in case.policy.rules
        )
        if elsewhere:
            return Refusal("phase_denied", f"{case.role.name} may not call {name} in phase {facts.phase}")
        return Refusal("no_rule", f"no rule lets {case.role.name} call {name}")
    return None


def _check_claim(case: CallCase) -> Refusal | None:
    """Step 7."""
    facts = case.facts
    if not case.is_callers or not case.capability.is_write:
        return None
    if facts.task is None or facts.claimed_by != facts.principal:
        return Refusal("not_claimed", f"{facts.principal} has not claimed the task of {case.capability.name}")
    return None


def _check_paths(case: CallCase) -> Refusal | None:
    """Step 8."""
    specs = case.capability.args
    if not case.is_callers:
        return None
    if problem := next(path_problems(case.call.args, specs), None):
        return Refusal(problem.rule_id, f"argument {problem.field}: {problem.reason}")
    globs = case.grant.write_paths if case.capability.is_write else frozenset[str]()
    for name, spec in specs.items():
        for text in texts_of(case.call.args.get(name)) if spec.type in ("path", "paths") else ():
            if globs and not any(glob_matches(glob, text) for glob in globs):
                allowed = ", ".join(sorted(globs))
                return Refusal("path_not_granted", f"argument {name}: {case.role.name} writes only {allowed}")
    return None


def _check_arguments(case: CallCase) -> Refusal | None:
    """Step 9: types and limits, programs of the role, then rules that look at arguments."""
    if case.is_callers:
        if problem := next(argument_problems(case.call.args, case.capability.args), None):
            return Refusal(problem.rule_id, f"argument {problem.field}: {problem.reason}")
        if refusal := _program_refusal(case):
            return refusal
    if denied := next((rule for rule in case.rules("deny") if rule.holds(case.call.args)), None):
        return Refusal(denied.id, denied.reason or f"rule {denied.id} denies such arguments")
    if not any(rule.holds(case.call.args) for rule in case.rules("allow")):
        return Refusal("no_rule", f"no rule lets {case.role.name} call {case.capability.name} with such arguments")
    return None


def _program_refusal(case: CallCase) -> Refusal | None:
    for name, spec in case.capability.args.items():
        if spec.type == "argv" and name in case.call.args:
            program = texts_of(case.call.args[name])[0]
            if program not in case.grant.commands:
                allowed = ", ".join(sorted(case.grant.commands)) or "none"
                return Refusal("command_not_listed", f"{program[:80]!r} is no program of {case.role.name}: {allowed}")
    return None


def _check_targets(case: CallCase) -> Refusal | None:
    """Step 10."""
    if not case.is_callers:
        return None
    for name, spec in case.capability.args.items():
        for text in texts_of(case.call.args.get(name)) if spec.target else ():
            if not _is_listed(case, spec, text):
                return Refusal("target_not_listed", f"argument {name}: {text[:200]!r} is no listed {spec.target}")
    return None


def _is_listed(case: CallCase, spec: ArgSpec, text: str) -> bool:
    targets, grant = case.policy.targets, case.grant
    match spec.target:
        case "host":
            host = host_of(text) if spec.type == "url" else text.lower()
            if host == PREVIEW_HOST and case.capability.declared.scope == "workspace":
                return True
            return host is not None and all(
                host_is_listed(host, hosts) for hosts in (targets.hosts, sorted(grant.hosts) or targets.hosts)
            )
        case "repository":
            return _is_listed_repository(case, text)
        case "database":
            database = targets.databases.get(text)
            is_granted = not grant.dbs or text in grant.dbs
            return database is not None and is_granted and (database.allow_write or not case.capability.is_write)
        case "image":
            return text in targets.images
        case "namespace":
            return f"{case.facts.environment}/{text}" in targets.namespaces
        case "chart":
            return text in targets.charts
        case _:
            return text in targets.mcp_servers


def _is_listed_repository(case: CallCase, text: str) -> bool:
    try:
        address = parse_git_address(text)
    except InvalidInput:
        return False
    hosts = sorted(case.grant.hosts) or [address.host]
    return git_target(case.policy.targets.git, address) is not None and host_is_listed(address.host, hosts)


CHECKS: tuple[Callable[[CallCase], Refusal | None], ...] = (
    _check_allowlist,
    _check_phase,
    _check_claim,
    _check_paths,
    _check_arguments,
    _check_targets,
)
