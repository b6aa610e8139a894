"""The gates that agents may decide in a run, because whoever starts it says so (LC-77)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from fleet.errors import InvalidInput, PolicyDenied
from fleet.events import RunDelegation
from fleet.ids import Principal
from fleet.ports import Command
from fleet.services.council_pools import sitting_roles
from fleet.services.workbench import Workbench
from fleet.story import Caller, check_delegable

__all__ = ["COUNCIL", "COUNCIL_SEAT", "DELEGATION_S", "check_delegates", "run_delegations"]

DELEGATION_S = 30 * 24 * 3600
"""How long a delegation of a run holds at most (LC-77)."""
COUNCIL = "council:"
"""What a delegate begins with that is a council of the role behind it."""
COUNCIL_SEAT = 900
"""No seat of a team has it, so a delegate is the author of nothing that it decides about (LC-75)."""
_DELEGATES = {"po": Principal("agent:reviewer-001"), "qa": Principal("agent:qa-002")}

_RUN_GATES = frozenset(
    {"approve_scope", "approve_plan", "approve_design", "qa_passed", "docs_ready", "task_acceptance"}
)
"""The gates that every run passes, and that `--yes` therefore delegates."""


def check_delegates(names: Sequence[str], councils: Collection[str] | None = None) -> None:
    """Returns when a run may be started with these: roles, and one council at most that takes the gates of the others.

    Args:
        names: `po`, `qa`, `council:<role>`.
        councils: roles that councils may be of; None looks at the form alone.

    Raises:
        InvalidInput: a name that is neither; a second council; one that no gate is left for.
    """
    known = None if councils is None else [f"{COUNCIL}{role}" for role in councils]
    for name in names:
        is_council = name.startswith(COUNCIL) and (name in known if known is not None else name != COUNCIL)
        if name not in _DELEGATES and not is_council:
            allowed = [*_DELEGATES, *(known if known is not None else [f"{COUNCIL}<role>"])]
            raise _refused(f"{name[:80]!r} cannot be delegated to; allowed: {', '.join(allowed)}", allowed)
    named = sorted({name for name in names if name.startswith(COUNCIL)})
    if len(named) > 1:
        raise _refused(f"a run has one council at gates, not {' and '.join(named)}", named)
    if named and set(_DELEGATES) <= set(names):
        raise _refused(f"{named[0]} is left no gate: name it alone, or beside one of {', '.join(_DELEGATES)}", named)


def run_delegations(bench: Workbench, command: Command, caller: Caller) -> tuple[RunDelegation, ...]:
    """One delegation for each gate of the roles in `delegate` of the body; none without roles.

    A council has the gates of the roles that are not named beside it.

    Raises:
        InvalidInput: as `check_delegates`; agents of this fleet serve no such role.
        PolicyDenied: the caller is no person, or a gate may not be delegated at the rigor of the story.
    """
    names: list[str] = command.body.get("delegate") or []
    check_delegates(names, sitting_roles(bench))
    if names and not caller.principal.is_human:
        raise PolicyDenied("only a person delegates a gate", rule_id="LC-77")
    state, fsm = bench.state, bench.rules.fsm
    found: list[RunDelegation] = []
    for name, roles in _shares(names):
        council = name.removeprefix(COUNCIL) if name.startswith(COUNCIL) else None
        for gate in [n for n in fsm.gates if fsm.gate(state.lifecycle, n).role in roles and n in _RUN_GATES]:
            check_delegable(fsm, state.lifecycle, gate, state.rigor)
            found.append(
                RunDelegation(
                    delegation_id=bench.new_id("dg", f"start/{gate}"),
                    gate=gate,
                    delegate=Principal(f"agent:{council}-{COUNCIL_SEAT:03d}") if council else _DELEGATES[name],
                    granted_by=caller.principal,
                    max_rigor=state.rigor,
                    valid_until=bench.now_ms + DELEGATION_S * 1000,
                    reason=f"unattended run: --yes {name}",
                    council=council,
                )
            )
    return tuple(found)


def _shares(names: Sequence[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Each delegate once, with the roles whose gates it has."""
    for name in dict.fromkeys(names):
        yield name, frozenset({name} if name in _DELEGATES else set(_DELEGATES) - set(names))


def _refused(text: str, allowed: Sequence[str]) -> InvalidInput:
    return InvalidInput(text, field="delegate", allowed=list(allowed))
