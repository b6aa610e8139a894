"""Pools of councils that an admin sets while the fleet runs, on the platform's stream (CN-16, AP-79).

What is on record stands before config/council.yaml, role by role. A council takes what is in force when it opens into
its own stream, so one that is open keeps its seats whatever is said later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from fleet.council.config import CouncilConfig, CouncilPool, NamedAgent
from fleet.council.roster import roster_problems, seats
from fleet.events.payload import Payload
from fleet.events.platform import CouncilPoolRemoved, CouncilPoolSet
from fleet.kernel.errors import InvalidInput, NotFound
from fleet.log.port import Command
from fleet.models.profiles import RUN_PROFILE, ModelsConfig
from fleet.owner.workbench import Workbench
from fleet.planning.platform_state import PlatformState, RecordedPool
from fleet.policy.roles import RolesConfig
from fleet.story.commands.command import Caller

_SIZES = (3, 5, 7, 9)


@dataclass(frozen=True, slots=True)
class PoolRules:
    """What a pool has to fit into.

    Args:
        config: of councils; its pools are those of the file.
        staffed: roles and profiles that agents of this fleet serve; None is every one.
    """

    config: CouncilConfig
    models: ModelsConfig
    roles: RolesConfig
    staffed: frozenset[str] | None = None


class PoolInForce(NamedTuple):
    """A pool, and who said so; None when the file did."""

    pool: CouncilPool
    recorded: RecordedPool | None


def sitting_roles(bench: Workbench) -> tuple[str, ...]:
    """The roles that may be given work, as far as somebody in this fleet serves them (CN-3)."""
    assignable = bench.journal.policy.policy.roles.assignable
    return tuple(role for role in assignable if bench.staffed is None or role in bench.staffed)


def pools_in_force(config: CouncilConfig, state: PlatformState) -> dict[str, PoolInForce]:
    """The pools by role: those of the file, but for what an admin said since."""
    found = {role: PoolInForce(pool, None) for role, pool in config.pools.items()}
    for role, recorded in state.pools.items():
        found.pop(role, None)
        pool = _pool_of(recorded)
        if pool is not None:
            found[role] = PoolInForce(pool, recorded)
    return found


def _pool_of(recorded: RecordedPool) -> CouncilPool | None:
    try:
        return None if recorded.config is None else CouncilPool.model_validate(recorded.config)
    except ValidationError:
        # Written under other rules: councils of the role have the defaults until somebody sets it anew.
        return None


async def council_rules(bench: Workbench) -> CouncilConfig:
    """The rules under which a council of the story opens now, with the pools and named agents in force."""
    platform, config = bench.journal.platform, bench.rules.council
    if platform is None:
        return config
    state = await platform.state()
    if not state.pools and not state.agents:
        return config
    pools = {role: one.pool for role, one in pools_in_force(config, state).items()}
    return config.model_copy(update={"pools": pools, "agents": _named(state)})


def _named(state: PlatformState) -> dict[str, tuple[NamedAgent, ...]]:
    """The named agents as councils seat them, by role."""
    return {
        role: tuple(
            NamedAgent(
                number=int(one.registered.agent_id[-3:]),
                model_policy=one.registered.engine,
                persona=one.registered.persona,
            )
            for one in agents
        )
        for role, agents in state.named_agents().items()
    }


# On the platform's stream.


def set_council_pool(
    rules: PoolRules | None, state: PlatformState, command: Command, caller: Caller
) -> tuple[Payload, ...]:
    """What setting the pool of a role records.

    Raises:
        PolicyDenied: the caller is no admin.
        InvalidInput: nobody could serve such a pool; `field` and `allowed` say what to change.
    """
    caller.require("admin")
    assert rules is not None, "whoever takes commands on pools knows the rules of pools"
    body = dict(command.body)
    role = str(body.pop("role", "") or "")
    check_role(rules, role)
    try:
        pool = CouncilPool.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "modes"
        raise InvalidInput(f"{field}: {first['msg']}", field=field) from error
    _check_size(rules, role, pool)
    _check_models(rules, role, pool)
    return (CouncilPoolSet(role=role, config=pool.model_dump(mode="json")),)


def remove_council_pool(
    rules: PoolRules | None, state: PlatformState, command: Command, caller: Caller
) -> tuple[Payload, ...]:
    """What taking the pool of a role away records. PolicyDenied for all but admins; NotFound when there is none."""
    caller.require("admin")
    assert rules is not None, "whoever takes commands on pools knows the rules of pools"
    role, known = str(command.body.get("role") or ""), sorted(pools_in_force(rules.config, state))
    if role not in known:
        raise NotFound(f"there is no pool of role {role[:60]!r}; there are: {', '.join(known)}", allowed=known)
    return (CouncilPoolRemoved(role=role),)


def check_role(rules: PoolRules, role: str) -> None:
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
