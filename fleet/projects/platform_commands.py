"""Commands on the fleet as a whole: pauses, delegated gates, pools of councils, named agents (LC-77, PL-50, AP-79).

Each is recorded on the platform's stream. A pool that is set there stands before config/council.yaml (CN-16).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias, get_args

from pydantic import ConfigDict, Field

from fleet.council.config import FIRST_NAMED, LAST_NAMED, CouncilPool
from fleet.council.roster import roster_problems, seats
from fleet.events.payload import Payload
from fleet.events.platform import (
    AccessDenied,
    AgentRegistered,
    AgentUnregistered,
    CouncilPoolRemoved,
    CouncilPoolSet,
    DelegationGranted,
    FleetPaused,
    FleetResumed,
    OverrideUsed,
)
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import CommandId, EntityId, StreamId, derive_id
from fleet.kernel.types import Frozen, NoteRequest, Reason, ReasonRequest
from fleet.models.profiles import RUN_PROFILE
from fleet.owner.council_pools import PoolRules, pools_in_force
from fleet.planning.platform_state import PLATFORM, PlatformState
from fleet.policy.roles import RolesConfig
from fleet.story.approvals import check_delegable, check_notes
from fleet.story.commands.command import Caller, TypedCommand, pick_model
from fleet.story.delegation import COUNCIL, DELEGATION_S, revoked
from fleet.story.lifecycle import RIGORS, FsmConfig


@dataclass(frozen=True, slots=True)
class DelegationRules:
    """What may be delegated, and to whom; and what a pool has to fit into.

    Args:
        delegates: roles that agents may have.
        now_ms: the clock's reading.
        pools: rules of pools, for whoever takes commands on them.
    """

    fsm: FsmConfig
    delegates: tuple[str, ...]
    now_ms: Callable[[], int]
    pools: PoolRules | None = None


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """What a command on the fleet is decided on beside the state of the fleet."""

    caller: Caller
    command_id: CommandId
    now_ms: int
    rules: DelegationRules

    @property
    def pools(self) -> PoolRules:
        """The rules of pools."""
        assert self.rules.pools is not None, "whoever takes commands on pools knows the rules of pools"
        return self.rules.pools


class PlatformCommand(TypedCommand):
    """A command on the fleet as a whole."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    @abstractmethod
    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """What the command records on the platform's stream, by rules alone. Raises what the domain refuses."""

    def made(self, state: PlatformState, command_id: CommandId) -> dict[str, Any]:
        """What the command made, as its sender is told."""
        return {}


def agent_roles(config: RolesConfig) -> tuple[str, ...]:
    """The roles that agents may have, sorted."""
    return tuple(sorted(name for name, role in config.roles.items() if role.actor != "human"))


# Pauses.

ProjectName = Annotated[str | None, Field(max_length=80)]


class PauseRequest(ReasonRequest):
    """Hold everything back, or the stories of one project."""

    project_id: ProjectName = None


class ResumeRequest(NoteRequest):
    """Let everything go on, or the stories of one project."""

    project_id: ProjectName = None


class PauseFleet(PauseRequest, PlatformCommand):
    """No step of the scope starts from here on."""

    command = "pause_fleet"

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The pause; InvalidTransition for what is paused."""
        facts.caller.require("admin")
        project = _project(self.project_id)
        if _is_paused(state, project):
            raise _not_now(project, "pause", "paused already")
        scope = "project" if project else "fleet"
        return (FleetPaused(scope=scope, id=project, by=facts.caller.principal, reason=self.reason),)


class ResumeFleet(ResumeRequest, PlatformCommand):
    """Steps of the scope may start again; a project that is paused itself stays so when the fleet goes on."""

    command = "resume_fleet"

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The end of the pause; InvalidTransition for what is not paused."""
        facts.caller.require("admin")
        project = _project(self.project_id)
        if not _is_paused(state, project):
            raise _not_now(project, "resume", "not paused")
        scope, note = "project" if project else "fleet", check_notes(self.note, "note") if self.note else ""
        return (FleetResumed(scope=scope, id=project, by=facts.caller.principal, reason=note),)


def _project(named: str | None) -> EntityId | None:
    """The project that is meant; None for the whole fleet."""
    if named is not None and not named.startswith("pr-"):
        raise InvalidInput("project_id names no project, such as pr-default", field="project_id")
    return None if named is None else EntityId(named)


def _is_paused(state: PlatformState, project: EntityId | None) -> bool:
    return state.pause is not None if project is None else project in state.project_pauses


def _not_now(project: EntityId | None, event: str, what: str) -> InvalidTransition:
    name = f"project {project}" if project else "the fleet"
    return InvalidTransition(f"{name} is {what}", state=what, event=event, allowed=[])


# Gates that a person delegates for all stories to come.


class GrantDelegation(PlatformCommand):
    """A gate is delegated in stories that are started from here on (LC-77)."""

    command = "grant_delegation"
    gate: str
    delegate: str
    reason: Reason
    valid_until: int
    """Milliseconds since 1970 UTC."""
    max_rigor: str
    projects: tuple[str, ...] = ()

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The delegation. PolicyDenied for a gate marked never, and above the cap of the gate."""
        _require_person(facts.caller)
        rules = facts.rules
        allowed = (*rules.delegates, *_councils(rules))
        if self.delegate not in allowed:
            raise _not_allowed("delegate", self.delegate, allowed)
        if self.max_rigor not in RIGORS:
            raise _not_allowed("max_rigor", self.max_rigor, RIGORS)
        _check_gate(rules.fsm, self.gate, self.max_rigor)
        if not facts.now_ms < self.valid_until <= facts.now_ms + DELEGATION_S * 1000:
            raise InvalidInput("valid_until lies in the future, and at most 30 days ahead", field="valid_until")
        if any(not name.startswith("pr-") for name in self.projects):
            raise InvalidInput("projects is a list of ids such as pr-default", field="projects")
        granted = DelegationGranted(
            delegation_id=derive_id("dg", PLATFORM, facts.command_id),
            gate=self.gate,
            delegate=self.delegate,
            granted_by=facts.caller.principal,
            reason=self.reason,
            valid_until=self.valid_until,
            max_rigor=self.max_rigor,
            projects=tuple(EntityId(name) for name in dict.fromkeys(self.projects)),
        )
        return (granted,)

    def made(self, state: PlatformState, command_id: CommandId) -> dict[str, Any]:
        """The id of the delegation."""
        return {"delegation_id": derive_id("dg", PLATFORM, command_id)}


class RevokeDelegation(PlatformCommand):
    """A delegation is taken back."""

    command = "revoke_delegation"
    delegation_id: str
    reason: str = ""

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The end of the delegation; InvalidTransition when it is revoked or over."""
        _require_person(facts.caller)
        name = self.delegation_id
        standing = state.delegations.get(name)
        if standing is None:
            raise NotFound(f"there is no delegation {name[:80]!r}", delegation_id=name[:80])
        if not standing.holds(now_ms=facts.now_ms):
            is_now = "revoked already" if standing.revoked_ms is not None else "over"
            raise InvalidTransition(f"delegation {name} is {is_now}", state=is_now, event="revoke", allowed=[])
        return (revoked(standing.granted, check_notes(self.reason, "reason") if self.reason else ""),)


def _councils(rules: DelegationRules) -> tuple[str, ...]:
    """`council:<role>` for each role of which agents of this fleet may sit in councils."""
    if rules.pools is None:
        return ()
    staffed = rules.pools.staffed
    return tuple(f"{COUNCIL}{role}" for role in rules.pools.roles.assignable if staffed is None or role in staffed)


def _require_person(caller: Caller) -> None:
    if not caller.principal.is_human:
        raise PolicyDenied("only a person delegates a gate", rule_id="LC-77")
    caller.require("admin", "po")


def _check_gate(fsm: FsmConfig, name: str, max_rigor: str) -> None:
    """Returns when some lifecycle lets the gate be delegated that far; each story keeps to its own besides."""
    lifecycles = [key for key, one in fsm.lifecycles.items() if name in fsm.gates or name in one.gates]
    if not lifecycles:
        gates = {*fsm.gates, *(gate for one in fsm.lifecycles.values() for gate in one.gates)}
        raise _not_allowed("gate", name, sorted(gates))
    refused: PolicyDenied | None = None
    for lifecycle in lifecycles:
        try:
            check_delegable(fsm, lifecycle, name, max_rigor)
        except PolicyDenied as error:
            refused = error
        else:
            return
    assert refused is not None
    raise refused


def _not_allowed(field: str, value: str, allowed: Any) -> InvalidInput:
    return InvalidInput(
        f"{field} {value[:80]!r} is none of {', '.join(allowed)}", field=field, value=value[:80], allowed=list(allowed)
    )


# Pools of councils, and the named agents in them.

_SIZES = (3, 5, 7, 9)


class SetCouncilPool(CouncilPool, PlatformCommand):
    """Councils of a role that open from here on are staffed so."""

    model_config = ConfigDict(extra="forbid")
    command = "set_council_pool"
    role: str

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The pool.

        Raises:
            PolicyDenied: the caller is no admin.
            InvalidInput: nobody could serve such a pool; `field` and `allowed` say what to change.
        """
        facts.caller.require("admin")
        _check_role(facts.pools, self.role)
        _check_size(facts.pools, self.role, self)
        _check_models(facts.pools, self.role, self)
        return (CouncilPoolSet(role=self.role, config=self.model_dump(mode="json", exclude={"role"})),)


class RemoveCouncilPool(PlatformCommand):
    """The role has no pool any more."""

    command = "remove_council_pool"
    role: str

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The removal. PolicyDenied for all but admins; NotFound when there is no such pool."""
        facts.caller.require("admin")
        roles = sorted(pools_in_force(facts.pools.config, state))
        if self.role not in roles:
            raise NotFound(f"there is no pool of role {self.role[:60]!r}; there are: {', '.join(roles)}", allowed=roles)
        return (CouncilPoolRemoved(role=self.role),)


def _check_role(rules: PoolRules, role: str) -> None:
    """Returns when agents of this fleet serve the role in councils; InvalidInput with those that may be named."""
    if role not in rules.roles.assignable:
        raise _refused("role", f"there is no assignable role {role[:60]!r}", rules.roles.assignable)
    if rules.staffed is not None and role not in rules.staffed:
        raise InvalidInput(
            f"no agent of this fleet serves role {role!r}: give it some under `pools` of fleet.yaml, then set its pool",
            field="role",
            allowed=sorted(rules.staffed),
        )


def _check_size(rules: PoolRules, role: str, pool: CouncilPool) -> None:
    if pool.num_agents not in _SIZES:
        raise _refused("num_agents", f"{pool.num_agents} seats can hold no vote with a majority", _SIZES)
    roster = seats([role] * pool.num_agents, config=rules.config)
    problems = roster_problems(
        roster, kind="selection", output_kind="text", num_agents=pool.num_agents, config=rules.config
    )
    if problems:
        raise InvalidInput(
            f"{'; '.join(problems)}. Choose another num_agents, or change reliability.weights of council.yaml",
            field="num_agents",
        )


def _check_models(rules: PoolRules, role: str, pool: CouncilPool) -> None:
    models = rules.models
    if pool.model_policy is not None and pool.model_policy not in models.policies:
        what = f"models.yaml has no policy {pool.model_policy[:60]!r}"
        raise _refused("model_policy", what, sorted(models.policies))
    known = rules.roles.roles[role]
    named = pool.model_policy or known.model_policy
    policy = models.policy_for(named, inherits=() if pool.model_policy else (role, *known.lineage))
    engines = {entry.engine_id for entry in policy.chain}
    kinds = {one.kind for one in models.engines if one.engine_id in engines or RUN_PROFILE in engines}
    if pool.kind not in kinds:
        what = f"policy {named!r} of models.yaml names no engine of kind {pool.kind!r}"
        raise _refused("kind", what, sorted(kinds))


def _refused(field: str, what: str, allowed: Any) -> InvalidInput:
    choices: tuple[Any, ...] = tuple(allowed)
    return InvalidInput(f"{what}; allowed are {', '.join(map(str, choices))}", field=field, allowed=list(choices))


_EVER = LAST_NAMED - FIRST_NAMED + 1
MAX_PERSONA = 1000
"""Characters of a persona."""
_AT_ONCE = 9
"""No council has more voters."""


class NewAgent(Frozen):
    """A seat for councils of a role that open from here on."""

    role: Annotated[str, Field(min_length=1, max_length=60)]
    model_policy: Annotated[str, Field(min_length=1, max_length=60)]
    """Policy of config/models.yaml that it answers with."""
    persona: Annotated[str | None, Field(max_length=MAX_PERSONA)] = None
    """How it works, in words: shown to its model as data beside the persona of its role."""


class RegisterAgent(NewAgent, PlatformCommand):
    """A named agent sits in councils of its role; the number of its id was never given before."""

    command = "register_agent"
    sentences: ClassVar[Mapping[str, str]] = {"persona": f"persona is a text of at most {MAX_PERSONA} characters"}

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The agent.

        Raises:
            PolicyDenied: the caller is no admin.
            InvalidInput: nobody serves the role, or there is no such policy; `field` and `allowed` say what to change.
            InvalidTransition: the role has as many as a council may have voters.
        """
        facts.caller.require("admin")
        role, policies = self.role, facts.pools.models.policies
        _check_role(facts.pools, role)
        if self.model_policy not in policies:
            raise _refused("model_policy", f"models.yaml has no policy {self.model_policy[:60]!r}", sorted(policies))
        ever = sum(agent.registered.role == role for agent in state.agents.values())
        if len(state.named_agents().get(role, ())) >= _AT_ONCE or ever >= _EVER:
            raise InvalidTransition(
                f"role {role} has all the named agents that it can have: take one away first",
                state="full",
                event="register_agent",
                allowed=[],
            )
        name = EntityId(f"agent-{role}-{FIRST_NAMED + ever:03d}")
        return (
            AgentRegistered(
                role=role, agent_id=name, profile=role, engine=self.model_policy, persona=self.persona or None
            ),
        )

    def made(self, state: PlatformState, command_id: CommandId) -> dict[str, Any]:
        """The id of the agent."""
        names = (name for name, agent in state.agents.items() if agent.command_id == command_id)
        return {"agent_id": next(names, None)}


class UnregisterAgent(PlatformCommand):
    """A named agent is taken away."""

    command = "unregister_agent"
    agent_id: str

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The removal. PolicyDenied for all but admins; NotFound when it is not registered."""
        facts.caller.require("admin")
        agent = state.agents.get(self.agent_id)
        if agent is None or agent.is_gone:
            there = [key for key, one in state.agents.items() if not one.is_gone]
            listed = ", ".join(there) or "none"
            raise NotFound(f"there is no named agent {self.agent_id[:80]!r}; there are: {listed}", allowed=there)
        return (AgentUnregistered(role=agent.registered.role, agent_id=agent.registered.agent_id),)


# What only a front sends, and for nobody but the caller.


class RecordDenial(PlatformCommand):
    """Somebody asked for what is hidden from it (CX-16)."""

    command = "record_denial"
    action: str
    object: str
    rule_id: str

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The denial."""
        action, what, rule = self.action[:200], self.object[:200], self.rule_id[:200]
        return (AccessDenied(principal=facts.caller.principal, action=action, object=what, rule_id=rule),)


class RecordOverride(PlatformCommand):
    """Somebody reads what is hidden from it because of an incident; sent before it is answered (CX-18)."""

    command = "record_override"
    action: str
    object: str
    reason: Reason

    def decide(self, state: PlatformState, facts: PlatformFacts) -> tuple[Payload, ...]:
        """The use of the override. PolicyDenied but for people in a role that may."""
        facts.caller.require("po", "architect", listed=True)
        action, what = self.action[:200], self.object[:200]
        return (
            OverrideUsed(
                principal=facts.caller.principal, action=action, object=what, rule_id="CX-18", reason=self.reason
            ),
        )


class AcceptLoss(ReasonRequest, TypedCommand):
    """The end of a stream is given up (EV-19); the notary signs that, and no event repeats it."""

    model_config = ConfigDict(extra="ignore")
    command = "accept_loss"
    stream: StreamId


AnyPlatformCommand: TypeAlias = (
    PauseFleet
    | ResumeFleet
    | GrantDelegation
    | RevokeDelegation
    | SetCouncilPool
    | RemoveCouncilPool
    | RegisterAgent
    | UnregisterAgent
    | RecordDenial
    | RecordOverride
    | AcceptLoss
)
_MODELS: Mapping[str, type[AnyPlatformCommand]] = {model.command: model for model in get_args(AnyPlatformCommand)}


def parse_platform_command(name: str, body: Mapping[str, Any]) -> AnyPlatformCommand:
    """The command of this name with this body; InvalidInput says what is wrong with it."""
    return pick_model(_MODELS, name).model_validate(body)
