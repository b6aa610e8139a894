"""config/roles.yaml as types: roles and the profiles that extend them (RT-1..RT-4, RT-19)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from fleet.kernel.documents import WrongKey, problems_of, wrong_file
from fleet.kernel.errors import InvalidInput, PolicyDenied
from fleet.kernel.ids import Principal
from fleet.kernel.types import DecisionCategory, Frozen, Phase, RoleName
from fleet.policy.catalogue import TOOL_OPS

Scope = Literal["technical", "quality", "operations", "data", "business"]


class ToolGrant(Frozen):
    """What a role may call of one tool."""

    ops: frozenset[str]
    """Operations, of those that the tool has."""
    commands: frozenset[str] = frozenset()
    """Programs that `exec` may start (RT-55)."""
    hosts: frozenset[str] = frozenset()
    """Hosts that may be addressed."""
    dbs: frozenset[str] = frozenset()
    """Databases that may be addressed."""
    write_paths: frozenset[str] = frozenset()
    """Globs that writing is bound to; none means everywhere inside the workspace."""

    def united(self, other: ToolGrant) -> ToolGrant:
        """Both grants together."""
        bound = self.write_paths | other.write_paths if self.write_paths and other.write_paths else frozenset[str]()
        return ToolGrant(
            ops=self.ops | other.ops,
            commands=self.commands | other.commands,
            hosts=self.hosts | other.hosts,
            dbs=self.dbs | other.dbs,
            write_paths=bound if self.writes and other.writes else self.write_paths | other.write_paths,
        )

    @property
    def writes(self) -> bool:
        """Whether an operation changes files of the workspace."""
        return bool(self.ops & {"write", "edit", "append", "mkdir", "move", "delete"})

    def exceeding(self, base: ToolGrant) -> Iterator[str]:
        """Every permission that `base` does not have."""
        for name in ("ops", "commands", "hosts", "dbs"):
            for item in sorted(getattr(self, name) - getattr(base, name)):
                yield f"{name} {item}"
        if self.writes and base.write_paths and not (self.write_paths and self.write_paths <= base.write_paths):
            yield f"write_paths outside {', '.join(sorted(base.write_paths))}"


class Visibility(Frozen):
    """Which rows a role sees (CX-10..CX-15)."""

    stories: Literal["all", "assigned_epics", "assigned", "phase_test", "role_tasks"]
    decisions: Literal["all"] | frozenset[DecisionCategory]


class Acting(Frozen):
    """How far a role looks around with tools before it drafts; everything that this may cost is bounded here."""

    steps: Annotated[int, Field(ge=2, le=50)]
    """Replies of the model; the last one is for what it found."""
    tools: tuple[str, ...] = ("files.list", "files.read", "search.text", "tests.pytest")
    """Operations, as `<tool>.<op>`; those that the role may not call, or that leave something behind, are left out."""
    tokens: Annotated[int, Field(ge=1_000)] = 32_000
    """Of all prompts and replies together; once they are used, no further reply is asked for."""
    wall_s: Annotated[int, Field(ge=1, le=14_400)] = 900
    """Seconds of replies and calls together."""
    calls_per_reply: Annotated[int, Field(ge=1, le=8)] = 3
    result_chars: Annotated[int, Field(ge=200, le=10_000)] = 2_000
    """Characters of one result that the model is shown."""
    transcript_chars: Annotated[int, Field(ge=1_000, le=200_000)] = 8_000
    """Characters of all results together; older ones are cut first."""
    findings_chars: Annotated[int, Field(ge=500, le=20_000)] = 3_000
    """Characters of notes and results that the draft is shown."""


class Grants(Frozen):
    """Permissions of a profile beyond its base role (RT-3)."""

    tools: dict[str, ToolGrant] = Field(default_factory=dict)


class RoleEntry(Frozen):
    """One role as written; with `extends` a profile, which inherits every field it omits (RT-2)."""

    extends: RoleName | None = None
    actor: Literal["human", "agent", "any"] | None = None
    scope: Scope | None = None
    assignable: bool | None = None
    tools: dict[str, ToolGrant] | None = None
    phases: frozenset[Phase] | None = None
    council_weight: Annotated[int, Field(ge=0, le=100)] | None = None
    prompt: Annotated[str, Field(pattern=r"^prompts/[a-z0-9_/-]+\.md$")] | None = None
    model_policy: str | None = None
    visibility: Visibility | None = None
    acts: Acting | None = None
    """How it looks around with tools before it drafts; without it, it drafts from its prompt alone."""
    grants: Grants = Grants()


_INHERITED = tuple(name for name in RoleEntry.model_fields if name not in ("extends", "grants"))
_NEEDED = tuple(name for name in _INHERITED if name != "acts")


class Role(Frozen):
    """A role with everything resolved."""

    name: RoleName
    lineage: tuple[str, ...] = ()
    """The roles it extends, nearest first; empty for a base role."""
    actor: Literal["human", "agent", "any"]
    scope: Scope
    assignable: bool
    tools: dict[str, ToolGrant]
    phases: frozenset[Phase]
    council_weight: int
    prompt: str
    model_policy: str
    visibility: Visibility
    acts: Annotated[Acting | None, Field(exclude=True)] = None
    """Not part of what a policy's digest covers: no decision depends on it."""

    def may_call(self, tool: str, op: str) -> bool:
        """Whether the operation is in the role's allowlist (step 4 of RT-30)."""
        return tool in self.tools and op in self.tools[tool].ops


class _Document(Frozen):
    roles: Annotated[dict[RoleName, RoleEntry], Field(min_length=1)]


class RolesConfig(Frozen):
    """config/roles.yaml with all profiles resolved."""

    roles: dict[str, Role]

    def role(self, name: str) -> Role:
        """The role of this name; InvalidInput lists those that exist."""
        if name not in self.roles:
            allowed = sorted(self.roles)
            raise InvalidInput(
                f"unknown role {name!r}: choose one of {', '.join(allowed)}, or add it to config/roles.yaml",
                field="role",
                value=name,
                allowed=allowed,
            )
        return self.roles[name]

    @property
    def assignable(self) -> tuple[str, ...]:
        """Names of the roles that tasks may be given to, sorted."""
        return tuple(sorted(name for name, role in self.roles.items() if role.assignable))


def load_roles(
    data: Mapping[str, Any],
    *,
    tool_ops: Mapping[str, frozenset[str]] = TOOL_OPS,
    source: str = "config/roles.yaml",
) -> RolesConfig:
    """The validated roles; a new role needs YAML only (RT-1).

    Args:
        tool_ops: all operations that exist, by tool.

    Raises:
        ConfigError: names file and every problem: unknown or cyclic `extends`, unknown tool or operation, a missing
            field, a profile with more rights than its base role and no `grants` (RT-2, RT-3).
    """
    try:
        document = _Document.model_validate(data)
    except ValidationError as error:
        raise wrong_file(source, problems_of(error), data) from error
    problems: list[WrongKey] = []
    for name, entry in document.roles.items():
        problems += _unknowns(name, entry, tool_ops)
        problems += _lineage_problems(name, document.roles)
    if problems:
        raise wrong_file(source, problems, data)
    resolved: dict[str, Role] = {}
    for name in document.roles:
        problems += _resolve(name, document.roles, resolved)
    if problems:
        raise wrong_file(source, problems, data)
    return RolesConfig(roles=resolved)


def _unknowns(name: str, entry: RoleEntry, tool_ops: Mapping[str, frozenset[str]]) -> Iterator[WrongKey]:
    path = f"roles.{name}"
    for place, tools in (("tools", entry.tools or {}), ("grants.tools", entry.grants.tools)):
        for tool, grant in tools.items():
            if tool not in tool_ops:
                yield WrongKey(f"{path}.{place}.{tool}", f"unknown tool {tool}")
            elif extra := sorted(grant.ops - tool_ops[tool]):
                yield WrongKey(f"{path}.{place}.{tool}.ops", f"tool {tool} has no operation {', '.join(extra)}")
    for number, called in enumerate(entry.acts.tools if entry.acts is not None else ()):
        tool, _, op = called.partition(".")
        if op not in tool_ops.get(tool, frozenset[str]()):
            yield WrongKey(f"{path}.acts.tools.{number}", f"{called} does not exist")


def _lineage_problems(name: str, entries: Mapping[str, RoleEntry]) -> Iterator[WrongKey]:
    seen, current = [name], entries[name].extends
    while current is not None:
        if current not in entries:
            yield WrongKey(f"roles.{seen[-1]}.extends", f"there is no role {current}")
            return
        if current in seen:
            yield WrongKey(f"roles.{name}.extends", f"it extends itself through {' -> '.join([*seen, current])}")
            return
        seen.append(current)
        current = entries[current].extends


def _resolve(name: str, entries: Mapping[str, RoleEntry], resolved: dict[str, Role]) -> list[WrongKey]:
    """Put the role, and first those it extends, into `resolved`; what is wrong with it."""
    if name in resolved:
        return []
    entry = entries[name]
    base: Role | None = None
    if entry.extends is not None:
        if problems := _resolve(entry.extends, entries, resolved):
            return problems
        base = resolved[entry.extends]
    values = {field: _value(entry, base, field) for field in _INHERITED}
    problems = [WrongKey(f"roles.{name}", f"{field} is missing") for field in _NEEDED if values[field] is None]
    if base is None and entry.grants != Grants():
        problems.append(WrongKey(f"roles.{name}.grants", "grants are for profiles; a base role lists its tools"))
    if base is not None:
        problems += [WrongKey(f"roles.{name}.tools", f"{item}; add it to grants") for item in _exceeding(entry, base)]
    if problems:
        return problems
    values["tools"] = _united(values["tools"], entry.grants.tools)
    lineage = () if base is None else (base.name, *base.lineage)
    resolved[name] = Role(name=name, lineage=lineage, **values)
    return []


def _value(entry: RoleEntry, base: Role | None, field: str) -> Any:
    own = getattr(entry, field)
    return own if own is not None or base is None else getattr(base, field)


def _exceeding(entry: RoleEntry, base: Role) -> Iterator[str]:
    for tool, grant in (entry.tools or {}).items():
        if tool not in base.tools:
            yield f"tool {tool} is not one of {base.name}"
        else:
            yield from (f"tool {tool}: {item} is not one of {base.name}" for item in grant.exceeding(base.tools[tool]))


def _united(tools: Mapping[str, ToolGrant], extra: Mapping[str, ToolGrant]) -> dict[str, ToolGrant]:
    both = {name: tools[name].united(grant) if name in tools else grant for name, grant in extra.items()}
    return {**tools, **both}


def roles_held(config: RolesConfig, principal: Principal, registered: frozenset[str]) -> frozenset[str]:
    """The roles of a principal: those of the registry; an agent that is not in it has the one it is named after."""
    if registered or principal.kind != "agent":
        return registered
    named = principal.split(":", 1)[1].rsplit("-", 1)[0]
    return frozenset({named}) & frozenset(config.roles)


def require_role(
    principal: Principal,
    held: Set[str],
    *roles: str,
    rule_id: str = "role_not_held",
    why: str = "",
    listed: bool = False,
) -> str:
    """Return the first of these roles that the principal holds.

    Args:
        held: the roles of the principal.
        why: what the role is needed for, for the message: `which decides this gate`.
        listed: name the roles in `allowed` as a list, not as words.

    Raises:
        PolicyDenied: it holds none of them; `allowed` names them.
    """
    for role in roles:
        if role in held:
            return role
    allowed = list(roles) if listed else " ".join(roles)
    ending = f", {why}" if why else ""
    raise PolicyDenied(f"{principal} {_lacks(roles)}{ending}", rule_id=rule_id, allowed=allowed)


def _lacks(roles: tuple[str, ...]) -> str:
    match roles:
        case (role,):
            return f"does not hold role {role!r}"
        case (one, other):
            return f"holds neither role {one!r} nor {other!r}"
        case _:
            return f"holds none of the roles {', '.join(roles)}"


def require_any_role(principal: Principal, held: Set[str]) -> None:
    """Return when the principal holds any role; PolicyDenied otherwise."""
    if not held:
        raise PolicyDenied(f"{principal} holds no role of this fleet", rule_id="role_not_held")


def require_chosen(principal: Principal, held: Set[str], role: str) -> None:
    """Return when the principal holds the role that it chose to act in; PolicyDenied otherwise."""
    if role not in held:
        shown = role[:60]
        raise PolicyDenied(f"{principal} does not hold role {shown!r}", rule_id="role_not_held", role=shown)
