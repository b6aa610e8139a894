"""config/policy.yaml as types: declarations, targets and rules, checked whole at start (RT-20, RT-21, GL-22)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, cast

from pydantic import Field, ValidationError, field_validator

from fleet.kernel.digest import digest_of_json
from fleet.kernel.documents import WrongKey, problems_of, wrong_file
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen, Phase
from fleet.policy.capabilities import PRODUCT_OPS, Capability, Declaration, contradictions
from fleet.policy.catalogue import READ_OPS, TOOL_OPS, WRITE_OPS
from fleet.policy.plugin_tools import plugin_ops, with_plugins
from fleet.policy.roles import Role, RolesConfig
from fleet.policy.rules.table import PHASES, Effect, Origin, Rule, is_call_pattern, names_call
from fleet.policy.runs.services import ServicesConfig
from fleet.policy.runs.toolchains import DEFAULT_TOOLCHAINS, ToolchainConfig, ToolchainName
from fleet.policy.targets import Targets

_ANY = "*"


class CommitsConfig(Frozen):
    """What the commits of stories say of who made them; they are never signed, and never in the user's name."""

    author: Annotated[str | None, Field(pattern=r"^[^<>\x00-\x1f]{1,100} <[^<>\s\x00-\x1f]{1,200}>$")] = None
    """`Name <mail>`, author and committer alike; None names the agent of each task."""


class _Document(Frozen):
    targets: Targets = Targets()
    commits: CommitsConfig = CommitsConfig()
    toolchains: dict[ToolchainName, ToolchainConfig] = Field(default_factory=lambda: dict(DEFAULT_TOOLCHAINS))
    services: ServicesConfig = ServicesConfig()
    tools: Annotated[dict[str, tuple[Declaration, ...]], Field(min_length=1)]
    rules: tuple[Rule, ...]

    @field_validator("toolchains")
    @classmethod
    def _keeps_python(cls, toolchains: dict[str, ToolchainConfig]) -> dict[str, ToolchainConfig]:
        if "python" in toolchains and toolchains["python"].language != "python":
            raise ValueError("python runs the product's own scripts: give another name to this toolchain")
        return toolchains


@dataclass(frozen=True, slots=True)
class Policy:
    """config/policy.yaml and config/roles.yaml together: all that a decision depends on beside the call."""

    roles: RolesConfig
    capabilities: Mapping[str, Capability]
    """By `<tool>.<op>`."""
    rules: tuple[Rule, ...]
    targets: Targets
    toolchains: Mapping[str, ToolchainConfig] = field(default_factory=lambda: DEFAULT_TOOLCHAINS)
    """What runs may name (RC-34). No decision depends on it, so the digest leaves it out; a run records its image."""

    services: ServicesConfig = ServicesConfig()
    """Recipes of side services (RC-101). Looked at when a run starts, not when a call is decided."""

    commits: CommitsConfig = CommitsConfig()
    """No decision depends on it, so the digest leaves it out; a commit says it itself."""

    digest: Digest = field(init=False)
    """Digest of all of it: equal calls under equal digests get equal decisions (RT-31)."""

    _fitting: dict[tuple[str, str, Phase, Origin], tuple[Rule, ...]] = field(
        init=False, compare=False, repr=False, default_factory=dict[tuple[str, str, Phase, Origin], tuple[Rule, ...]]
    )
    """Remembered answers of `fitting`: as many as there are operations, roles, phases and origins together."""

    def __post_init__(self) -> None:
        whole = {
            "roles": self.roles.model_dump(),
            "capabilities": {name: c.model_dump() for name, c in self.capabilities.items()},
            "rules": [rule.model_dump() for rule in self.rules],
            "targets": self.targets.model_dump(),
        }
        object.__setattr__(self, "digest", digest_of_json(_stable(whole)))

    def capability(self, tool: str, op: str) -> Capability | None:
        """The declaration of this operation, None when there is none."""
        return self.capabilities.get(f"{tool}.{op}")

    def fitting(self, capability: Capability, role: Role, phase: Phase, origin: Origin) -> tuple[Rule, ...]:
        """The rules about this operation and role of the policy, arguments aside, in the order of the file."""
        asked = (capability.name, role.name, phase, origin)
        if (rules := self._fitting.get(asked)) is None:
            rules = tuple(rule for rule in self.rules if rule.fits(capability, role, phase, origin))
            self._fitting[asked] = rules
        return rules


def _stable(value: Any) -> Any:
    """Sets in order, so that the digest is that of every process."""
    match value:
        case dict():
            return {k: _stable(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case set() | frozenset():
            return sorted(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return [_stable(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def load_policy(
    data: Mapping[str, Any],
    *,
    roles: RolesConfig,
    tool_ops: Mapping[str, frozenset[str]] = TOOL_OPS,
    plugins: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    source: str = "config/policy.yaml",
) -> Policy:
    """The validated policy for these roles.

    Args:
        tool_ops: all operations that exist, by tool; those of PRODUCT_OPS exist as well.
        plugins: declarations of tools that plug-ins bring, by tool, in the form of the file (RT-69).

    Raises:
        ConfigError: names file, path and reason of every problem (details: file, problems): a contradiction within a
            declaration, an operation that a role has and nobody declares, an unknown role, tool, operation, phase,
            argument or target, a gate that does not exist, a rule that is never reached, an id that stands twice.
    """
    lines = data
    if plugins:
        data = with_plugins(data, plugins, shipped=tool_ops, source=source)
        tool_ops = {**tool_ops, **plugin_ops(plugins)}
    try:
        document = _Document.model_validate(_with_shared(data, source, lines))
    except ValidationError as error:
        raise wrong_file(source, problems_of(error), lines) from error
    capabilities = _capabilities(document)
    policy = Policy(
        roles=roles,
        capabilities={c.name: c for c in capabilities},
        rules=document.rules,
        targets=document.targets,
        # The product's own scripts run in this one, so it is always there.
        toolchains={"python": DEFAULT_TOOLCHAINS["python"], **document.toolchains},
        services=document.services,
        commits=document.commits,
    )
    problems = [*_declaration_problems(document, roles, tool_ops), *_undeclared(policy), *_reference_problems(policy)]
    # Whether a rule is reached can be said only when all that it names exists.
    problems = problems or list(_reach_problems(policy))
    if problems:
        raise wrong_file(source, problems, lines)
    return policy


def _with_shared(data: Mapping[str, Any], source: str, lines: Mapping[str, Any]) -> dict[str, Any]:
    """The document with every `like` replaced by what it stands for (the loader refuses YAML's merge key)."""
    shared: Any = data.get("shared") or {}
    plain: dict[str, Any] = {key: value for key, value in data.items() if key != "shared"}
    tools: Any = plain.get("tools")
    if not isinstance(tools, dict) or not isinstance(shared, dict):
        return plain
    whole: dict[str, Any] = {}
    for tool, entries in cast(dict[str, Any], tools).items():
        whole[tool] = entries
        if isinstance(entries, list):
            merged = [_merged(entry, cast(dict[str, Any], shared)) for entry in cast(list[Any], entries)]
            unknown = [n for n, entry in enumerate(merged) if isinstance(entry, dict) and "like" in entry]
            if unknown:
                problem = WrongKey(f"tools.{tool}.{unknown[0]}.like", "shared has nothing of this name")
                raise wrong_file(source, [problem], lines)
            whole[tool] = merged
    return {**plain, "tools": whole}


def _merged(entry: Any, shared: Mapping[str, Any]) -> Any:
    """The entry with what it is like; one that is like nothing known keeps its `like`."""
    if not isinstance(entry, dict) or not isinstance(shared.get(str(cast(dict[str, Any], entry).get("like"))), dict):
        return cast(Any, entry)
    own = cast(dict[str, Any], entry)
    return {**shared[str(own["like"])], **{key: value for key, value in own.items() if key != "like"}}


def _capabilities(document: _Document) -> list[Capability]:
    return [
        Capability(tool=tool, op=op, args=args, declared=declared)
        for tool, declarations in document.tools.items()
        for declared in declarations
        for op, args in declared.ops.items()
    ]


def _declaration_problems(
    document: _Document, roles: RolesConfig, tool_ops: Mapping[str, frozenset[str]]
) -> Iterator[WrongKey]:
    for tool, declarations in document.tools.items():
        declared_ops = tool_ops.get(tool, frozenset[str]()) | PRODUCT_OPS.get(tool, frozenset[str]())
        seen = set[str]()
        for number, declared in enumerate(declarations):
            path = f"tools.{tool}.{number}"
            yield from (WrongKey(path, why) for why in contradictions(declared))
            yield from (WrongKey(path, why) for why in _access_problems(tool, declared))
            if declared.approver_role is not None and not _can_approve(declared.approver_role, roles):
                yield WrongKey(f"{path}.approver_role", f"no role {declared.approver_role!r} that a person can hold")
            for op in declared.ops:
                if not declared_ops:
                    yield WrongKey(f"tools.{tool}", "no such tool")
                elif op not in declared_ops:
                    yield WrongKey(f"{path}.ops.{op}", f"tool {tool} has no such operation")
                if op in seen:
                    yield WrongKey(f"{path}.ops.{op}", "it is declared twice")
                seen.add(op)


def _access_problems(tool: str, declared: Declaration) -> Iterator[str]:
    shipped = {"read": READ_OPS.get(tool, frozenset[str]()), "write": WRITE_OPS.get(tool, frozenset[str]())}
    other = "write" if declared.access == "read" else "read"
    if wrong := sorted(set(declared.ops) & shipped[other]):
        yield f"{', '.join(wrong)} must be declared with access: {other}"


def _can_approve(role: str, roles: RolesConfig) -> bool:
    return role in roles.roles and roles.roles[role].actor != "agent"


def _undeclared(policy: Policy) -> Iterator[WrongKey]:
    for name, role in sorted(policy.roles.roles.items()):
        for tool, grant in sorted(role.tools.items()):
            if missing := sorted(op for op in grant.ops if f"{tool}.{op}" not in policy.capabilities):
                yield WrongKey(f"tools.{tool}", f"role {name} has {', '.join(missing)}, declared nowhere")
    for capability in policy.capabilities.values():
        if not _can_approve(capability.approver_role, policy.roles) and capability.declared.approval != "never":
            yield WrongKey(f"tools.{capability.tool}", f"its approver {capability.approver_role} is no role")


def _reference_problems(policy: Policy) -> Iterator[WrongKey]:
    seen = set[str]()
    for number, rule in enumerate(policy.rules):
        path = f"rules.{number} ({rule.id})"
        if rule.id in seen:
            yield WrongKey(path, "its id stands twice")
        seen.add(rule.id)
        yield from _names_problems(path, rule.roles, rule.calls, policy)
        yield from _when_problems(path, rule, policy)
        if rule.effect != "ask" and rule.risk is not None:
            yield WrongKey(f"{path}.risk", "only a rule that asks has one")


def _names_problems(path: str, roles: tuple[str, ...], calls: tuple[str, ...], policy: Policy) -> Iterator[WrongKey]:
    for role in roles:
        if role != _ANY and role not in policy.roles.roles:
            yield WrongKey(f"{path}.roles", f"no role {role!r}")
    for call in calls:
        if not is_call_pattern(call):
            yield WrongKey(f"{path}.calls", f"{call!r} is not written <tool>.<op>, <tool>.* or *")
        elif not any(names_call(call, c) for c in policy.capabilities.values()):
            tool = call.split(".")[0].split(":")[0]
            is_known = any(c.tool == tool for c in policy.capabilities.values())
            yield WrongKey(f"{path}.calls", f"no operation {call!r}" if is_known else f"no tool {tool!r}")


def _when_problems(path: str, rule: Rule, policy: Policy) -> Iterator[WrongKey]:
    well_formed = [call for call in rule.calls if is_call_pattern(call)]
    covered = [c for c in policy.capabilities.values() if any(names_call(call, c) for call in well_formed)]
    for name, match in rule.when.items():
        if lacking := [c.name for c in covered if name not in c.args]:
            yield WrongKey(f"{path}.when.{name}", f"{', '.join(lacking[:3])} has no such argument")
        if not match.matches and not match.not_matches:
            yield WrongKey(f"{path}.when.{name}", "it needs matches or not_matches")
    if rule.effect == "ask":
        for capability in covered:
            if capability.declared.approval == "never":
                gate = capability.gate().name
                yield WrongKey(path, f"no gate {gate}: the operation is declared with approval: never")


class _Cell(NamedTuple):
    """One kind of call, arguments aside."""

    origin: Origin
    role: str
    phase: Phase
    call: str


def _cells(policy: Policy) -> Iterator[_Cell]:
    """Every kind of call that is not refused before rules are asked."""
    for role in policy.roles.roles.values():
        for capability in policy.capabilities.values():
            is_offered = role.may_call(capability.tool, capability.op)
            for phase in PHASES:
                yield _Cell("product", role.name, phase, capability.name)
                if is_offered and phase in role.phases:
                    yield _Cell("caller", role.name, phase, capability.name)


def _fitting(rule: Rule, cells: Mapping[str, Sequence[_Cell]], policy: Policy) -> set[_Cell]:
    """The cells, given by operation, that the rule is about: what `Rule.fits` says of each, asked once per part."""
    roles = {role.name for role in policy.roles.roles.values() if rule.is_for(role)}
    covered = [name for name, capability in policy.capabilities.items() if rule.covers(capability)]
    covered_cells = (cell for name in covered for cell in cells.get(name, ()))
    return {c for c in covered_cells if c.role in roles and c.origin in rule.origins and rule.is_in(c.phase)}


def _reach_problems(policy: Policy) -> Iterator[WrongKey]:
    """Rules that decide nothing: no role of theirs makes such calls, or other rules decide all of them."""
    by_call: dict[str, list[_Cell]] = {}
    for cell in _cells(policy):
        by_call.setdefault(cell.call, []).append(cell)
    fitting = {rule.id: _fitting(rule, by_call, policy) for rule in policy.rules}
    asking = [name for name, capability in policy.capabilities.items() if capability.declared.approval == "always"]
    settled = {cell for name in asking for cell in by_call.get(name, ())}
    allowed = set[_Cell]().union(*(fitting[r.id] for r in policy.rules if r.effect == "allow"))
    taken: dict[Effect, set[_Cell]] = {"deny": set(), "ask": settled, "allow": set()}
    for effect in ("deny", "ask", "allow"):
        for number, rule in enumerate(policy.rules):
            if rule.effect == effect:
                cells = fitting[rule.id]
                left = cells - taken["deny"] - taken[effect]
                if why := _why_unreached(rule, cells, left, allowed):
                    yield WrongKey(f"rules.{number} ({rule.id})", f"it is never reached: {why}")
                if not rule.when:
                    taken[effect] |= cells


def _why_unreached(rule: Rule, cells: set[_Cell], left: set[_Cell], allowed: set[_Cell]) -> str | None:
    if not cells:
        return "no role of it makes such calls"
    if rule.effect == "ask" and not left & allowed:
        return "no other rule allows such calls, or all of them ask anyway"
    return None if left else "other rules decide all its calls"
