"""Commands about budgets: what an owner records when somebody sets the limits of a scope (MB-24)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from fleet.events.approval import ApprovalRequested
from fleet.events.payload import Payload
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ApprovalRequired, InvalidInput
from fleet.kernel.types import BudgetLimit, Frozen
from fleet.log.port import Command
from fleet.owner.workbench import Workbench
from fleet.story.approvals import last_request
from fleet.story.budget_commands import (
    RAISE_GATE,
    BudgetChange,
    ConsentNeeded,
    change_of,
    parse_scope,
    request_raise,
    set_budget,
)
from fleet.story.commands.command import Caller

Limits = dict[BudgetLimit, Annotated[int, Field(ge=0)] | None]


class _Asked(Frozen):
    scope: Annotated[str, Field(max_length=20)] = "story"
    id: Annotated[str, Field(max_length=80)] | None = None
    limits: Limits
    note: Annotated[str, Field(max_length=4000)] = ""


async def decide_budget(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """What the command records.

    Raises:
        ApprovalRequired: limits are raised by somebody who cannot consent to that; the request is on record.
        InvalidInput, NotFound, PolicyDenied, InvalidTransition: see `change_of`, `parse_scope` and `set_budget`.
    """
    try:
        asked = _Asked.model_validate(command.body)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_url=False)]
        raise InvalidInput(f"the budget is wrong: {'; '.join(problems)}", problems=problems) from error
    return await _decided(bench, asked, command, caller)


async def run_budget(bench: Workbench, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """What the limits that a run is started with record; nothing when there are none."""
    limits = command.body.get("budget")
    if not limits:
        return ()
    body = {"limits": limits, "note": "set when the run was started"}
    return await decide_budget(
        bench, Command(command.command_id, command.stream, "set_budget", command.principal, body), caller
    )


async def _decided(bench: Workbench, asked: _Asked, command: Command, caller: Caller) -> tuple[Payload, ...]:
    state, fsm = bench.state, bench.rules.fsm
    scope = parse_scope(state, asked.scope, asked.id)
    change = change_of(state, bench.journal.budgeting.limits, scope, {str(k): v for k, v in asked.limits.items()})
    last = last_request(state, RAISE_GATE, change.digest)
    attempt = last.request.attempt + 1 if last else 1
    name = f"gate/{RAISE_GATE}/{change.digest.hex[:16]}/{attempt}"
    request = request_raise(
        state,
        fsm,
        change,
        approval_id=bench.new_id("ap", name),
        card=await bench.blobs.put(canonical_json(_card(bench, change, asked.note))),
        caller=caller,
        now_ms=bench.now_ms,
        attempt=attempt,
    )
    decided = set_budget(state, fsm, change, caller=caller, now_ms=bench.now_ms, note=asked.note, consent=request)
    if not isinstance(decided, ConsentNeeded):
        return decided
    if decided.pending is None:
        await bench.journal.record(name, request, actor=caller.principal)
    raise _needs_consent(bench, change, decided, request)


def _card(bench: Workbench, change: BudgetChange, note: str) -> dict[str, object]:
    state = bench.state
    return {
        "gate": RAISE_GATE,
        "story": {"id": state.story_id, "title": state.content.title, "state": state.state},
        "scope": change.scope.model_dump(),
        "limits": change.as_recorded(),
        "tokens": state.tokens,
        "note": note,
    }


def _needs_consent(
    bench: Workbench, change: BudgetChange, needed: ConsentNeeded, request: ApprovalRequested
) -> ApprovalRequired:
    approval_id = needed.pending or request.approval_id
    return ApprovalRequired(
        f"a person in role {needed.role} has to approve the higher budget first: `fleet story approve "
        f"{bench.state.story_id} {approval_id}`, then send the same limits again",
        rule_id="MB-24",
        gate=RAISE_GATE,
        role=needed.role,
        approval_id=approval_id,
        request_digest=str(change.digest),
    )
