"""The gates that agents may decide in a run, because whoever starts it says so (LC-77)."""

from __future__ import annotations

from fleet.errors import InvalidInput, PolicyDenied
from fleet.events import RunDelegation
from fleet.ids import Principal
from fleet.ports import Command
from fleet.services.workbench import Workbench
from fleet.story import Caller, check_delegable

__all__ = ["DELEGATION_S", "run_delegations"]

DELEGATION_S = 30 * 24 * 3600
"""How long a delegation of a run holds at most (LC-77)."""
_DELEGATES = {"po": Principal("agent:reviewer-001"), "qa": Principal("agent:qa-002")}

_RUN_GATES = frozenset(
    {"approve_scope", "approve_plan", "approve_design", "qa_passed", "docs_ready", "task_acceptance"}
)
"""The gates that every run passes, and that `--yes` therefore delegates."""


def run_delegations(bench: Workbench, command: Command, caller: Caller) -> tuple[RunDelegation, ...]:
    """One delegation for each gate of the roles in `delegate` of the body; none without roles.

    Raises:
        InvalidInput: a role that cannot be delegated.
        PolicyDenied: the caller is no person.
    """
    roles: list[str] = command.body.get("delegate") or []
    unknown = [r for r in roles if r not in _DELEGATES]
    if unknown:
        raise InvalidInput(
            f"role {unknown[0]!r} cannot be delegated; allowed: {', '.join(_DELEGATES)}",
            field="delegate",
            allowed=list(_DELEGATES),
        )
    if roles and not caller.principal.is_human:
        raise PolicyDenied("only a person delegates a gate", rule_id="LC-77")
    state, fsm = bench.state, bench.rules.fsm
    names = [*fsm.gates]
    found: list[RunDelegation] = []
    for role in roles:
        gates = [n for n in names if fsm.gate(state.lifecycle, n).role == role and n in _RUN_GATES]
        for name in gates:
            check_delegable(fsm, state.lifecycle, name, state.rigor)
            found.append(
                RunDelegation(
                    delegation_id=bench.new_id("dg", f"start/{name}"),
                    gate=name,
                    delegate=_DELEGATES[role],
                    granted_by=caller.principal,
                    max_rigor=state.rigor,
                    valid_until=bench.now_ms + DELEGATION_S * 1000,
                    reason=f"unattended run: --yes {role}",
                )
            )
    return tuple(found)
