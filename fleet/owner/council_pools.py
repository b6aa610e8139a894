"""Pools of councils that an admin sets while the fleet runs, on the platform's stream (CN-16, AP-79).

What is on record stands before config/council.yaml, role by role. A council takes what is in force when it opens into
its own stream, so one that is open keeps its seats whatever is said later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from fleet.council.config import CouncilConfig, CouncilPool, NamedAgent
from fleet.models.profiles import ModelsConfig
from fleet.planning.platform_state import PlatformState, RecordedPool
from fleet.policy.roles import RolesConfig

if TYPE_CHECKING:
    from fleet.owner.workbench import Workbench


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
    pools = {role: PoolInForce(pool, None) for role, pool in config.pools.items()}
    for role, recorded in state.pools.items():
        pools.pop(role, None)
        pool = _pool_of(recorded)
        if pool is not None:
            pools[role] = PoolInForce(pool, recorded)
    return pools


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
