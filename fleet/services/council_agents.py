"""Named agents: seats with a model policy of their own, which an admin adds while the fleet runs (AP-79, CN-16).

A named agent sits in the councils of its role before the numbered seats of the pool do; how many sit stays the same.
Once it is gone no council that opens seats it, and those that are open keep it to their end.
"""

from __future__ import annotations

from typing import Any

from fleet import council as cn
from fleet.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied
from fleet.events import AgentRegistered, AgentUnregistered, Payload
from fleet.ids import EntityId
from fleet.planning import PlatformState
from fleet.ports import Command
from fleet.services.council_pools import PoolRules, check_role
from fleet.story import Caller

__all__ = ["MAX_PERSONA", "register_agent", "unregister_agent"]

_EVER = cn.LAST_NAMED - cn.FIRST_NAMED + 1
MAX_PERSONA = 1000
"""Characters of a persona."""
_AT_ONCE = 9
"""No council has more voters."""


def register_agent(
    rules: PoolRules | None, state: PlatformState, command: Command, caller: Caller
) -> tuple[Payload, ...]:
    """What registering an agent records; its id has the next number of the role that was never given.

    Raises:
        PolicyDenied: the caller is no admin.
        InvalidInput: nobody serves the role, or there is no such policy; `field` and `allowed` say what to change.
        InvalidTransition: the role has as many as a council may have voters.
    """
    _needs_admin(caller)
    assert rules is not None, "whoever takes commands on agents knows the rules of pools"
    role, policy = str(command.body.get("role") or ""), str(command.body.get("model_policy") or "")
    check_role(rules, role)
    if policy not in rules.models.policies:
        known = sorted(rules.models.policies)
        raise InvalidInput(
            f"models.yaml has no policy {policy[:60]!r}; allowed are {', '.join(known)}",
            field="model_policy",
            allowed=known,
        )
    ever = sum(agent.registered.role == role for agent in state.agents.values())
    if len(state.named_agents().get(role, ())) >= _AT_ONCE or ever >= _EVER:
        raise InvalidTransition(
            f"role {role} has all the named agents that it can have: take one away first",
            state="full",
            event="register_agent",
            allowed=[],
        )
    name = EntityId(f"agent-{role}-{cn.FIRST_NAMED + ever:03d}")
    persona = _persona(command.body.get("persona"))
    return (AgentRegistered(role=role, agent_id=name, profile=role, engine=policy, persona=persona),)


def _persona(said: Any) -> str | None:
    """The text without space around it; None when nothing was said. InvalidInput when it is no text, or too long."""
    text = said.strip() if isinstance(said, str) else said
    if text is None or text == "":
        return None
    if not isinstance(text, str) or len(text) > MAX_PERSONA:
        raise InvalidInput(f"persona is a text of at most {MAX_PERSONA} characters", field="persona")
    return text


def unregister_agent(state: PlatformState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """What taking an agent away records. PolicyDenied for all but admins; NotFound when it is not registered."""
    _needs_admin(caller)
    name = str(command.body.get("agent_id") or "")
    known = state.agents.get(name)
    if known is None or known.is_gone:
        there = [key for key, agent in state.agents.items() if not agent.is_gone]
        listed = ", ".join(there) or "none"
        raise NotFound(f"there is no named agent {name[:80]!r}; there are: {listed}", allowed=there)
    return (AgentUnregistered(role=known.registered.role, agent_id=known.registered.agent_id),)


def _needs_admin(caller: Caller) -> None:
    if "admin" not in caller.roles:
        raise PolicyDenied(f"{caller.principal} does not hold role 'admin'", rule_id="role_not_held", allowed="admin")
