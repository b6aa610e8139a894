"""Fold of budgets: every step reserves and settles, whatever else its events mean (MB-22..MB-26)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.budget import FAILED_CALLS, BudgetExhausted, BudgetScope, BudgetSet, BudgetWarning, UsageAdjusted
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.report import OwnershipTaken
from fleet.events.step import StepFinished, StepOutcomeUnknown, StepStarted
from fleet.models.routing.budget import QUANTITIES, Spend
from fleet.story.budgets import Hold, ScopeUsage, StoryBudgets, actual_spend, reserved_spend, scope_key, scopes_of_step
from fleet.story.state import StoryState

Change = Callable[[ScopeUsage], ScopeUsage]


def account(before: StoryState, payload: Payload, event: StoredEvent) -> StoryBudgets:
    """The budgets after this event, which came upon the state `before` (a second result of a step changes nothing)."""
    handler = _ACCOUNTS.get(type(payload))
    return before.budgets if handler is None else handler(before, payload, event)


def _started(s: StoryState, p: StepStarted, event: StoredEvent) -> StoryBudgets:
    scopes, known = scopes_of_step(s.story_id, p), s.budgets.holds.get(p.step_id)
    budgets = _released(s.budgets, p.step_id, scopes) if known is not None and known.is_open else s.budgets
    is_call, is_new = p.kind == "model", p.step_id not in budgets.running
    need = reserved_spend(p.reserve, calls=int(is_call))
    holds_any = need != Spend()

    def change(usage: ScopeUsage) -> ScopeUsage:
        usage = usage.holding(usage.reserved.plus(need)) if holds_any else usage
        return usage.begun(now_ms=event.ts_ms, deadline_ms=p.deadline_ms) if is_new else usage

    if holds_any:
        before = budgets.holds.get(p.step_id)
        budgets = _with_hold(budgets, p.step_id, Hold(need, is_call=is_call, lost=before.lost if before else ()))
    if is_new:
        budgets = replace(budgets, running=(*budgets.running, p.step_id))
    return _each(budgets, scopes, change) if holds_any or is_new else budgets


def without_hold(state: StoryState, started: StepStarted) -> StoryState:
    """The state as if the call of this step held nothing: what a further attempt may take in its place."""
    scopes = scopes_of_step(state.story_id, started)
    return state.with_(budgets=_released(state.budgets, started.step_id, scopes))


def _finished(s: StoryState, p: StepFinished, event: StoredEvent) -> StoryBudgets:
    step = s.steps.get(p.step_id)
    if step is None or step.finished is not None:
        return s.budgets
    budgets, scopes = s.budgets, scopes_of_step(s.story_id, step.started)
    actual = actual_spend(p.cost, calls=int(step.started.kind == "model"))
    hold, was_running = budgets.holds.get(p.step_id), p.step_id in budgets.running
    freed = hold.need if hold is not None and hold.is_open else Spend()

    def change(usage: ScopeUsage) -> ScopeUsage:
        usage = usage.settled(freed=freed, actual=actual)
        return usage.ended(now_ms=event.ts_ms) if was_running else usage

    if hold is not None and hold.is_open:
        budgets = _with_hold(budgets, p.step_id, replace(hold, is_open=False) if hold.lost else None)
    if was_running:
        budgets = replace(budgets, running=tuple(name for name in budgets.running if name != p.step_id))
    return _each(budgets, scopes, change)


def _unknown(s: StoryState, p: StepOutcomeUnknown, event: StoredEvent) -> StoryBudgets:
    # From here on somebody is waited for, which is free.
    step = s.steps.get(p.step_id)
    if step is None:
        return s.budgets
    return _stopped(s.budgets, p.step_id, scopes_of_step(s.story_id, step.started), event.ts_ms)


def _owned(s: StoryState, p: OwnershipTaken, event: StoredEvent) -> StoryBudgets:
    """A call that was under way may have been made in full, and is made again: both count until they are settled."""
    budgets = s.budgets
    for step_id, hold in budgets.holds.items():
        if hold.is_open and hold.is_call:
            scopes = scopes_of_step(s.story_id, s.steps[step_id].started)
            lost = replace(hold, lost=(*hold.lost, s.epoch))
            budgets = _held(budgets, step_id, lost, scopes, hold.need)
    usage = {key: u.taken_over(now_ms=event.ts_ms, last_ms=s.updated_ms) for key, u in budgets.scopes.items()}
    return replace(budgets, scopes=usage)


def _adjusted(s: StoryState, p: UsageAdjusted, _: StoredEvent) -> StoryBudgets:
    """What was really used beyond what is recorded. When the engine's log says so, what was held for it is free; what
    is held for a step of which calls failed stays, for its next call.
    """
    step = s.steps.get(p.step_id)
    if step is None:
        return s.budgets
    scopes = scopes_of_step(s.story_id, step.started)
    hold = s.budgets.holds.get(p.step_id)
    budgets = s.budgets
    if hold is not None and p.source != FAILED_CALLS:
        freed = replace(hold, is_open=False).total if hold.lost else hold.total
        kept = replace(hold, lost=()) if hold.lost else None
        budgets = _each(budgets, scopes, lambda u: u.holding(u.reserved.minus(freed)))
        budgets = _with_hold(budgets, p.step_id, kept if kept is not None and kept.is_open else None)
    more = Spend(**{k: v for k, v in p.delta.items() if k in QUANTITIES and v > 0})
    less = Spend(**{k: -v for k, v in p.delta.items() if k in QUANTITIES and v < 0})
    return _each(budgets, scopes, lambda u: replace(u, spent=u.spent.plus(more).minus(less)))


def _set(s: StoryState, p: BudgetSet, _: StoredEvent) -> StoryBudgets:
    limits: Mapping[str, int] = {str(name): value for name, value in p.limits.items()}
    return replace(s.budgets, limits={**s.budgets.limits, scope_key(p.scope): limits})


def _warned(s: StoryState, p: BudgetWarning, _: StoredEvent) -> StoryBudgets:
    return _each(s.budgets, (p.scope,), lambda u: replace(u, warned={**u.warned, p.limit: p.max}))


def _exhausted(s: StoryState, p: BudgetExhausted, _: StoredEvent) -> StoryBudgets:
    return _each(s.budgets, (p.scope,), lambda u: replace(u, exhausted={**u.exhausted, p.limit: p.max}))


def _held(budgets: StoryBudgets, step_id: str, hold: Hold, scopes: Iterable[BudgetScope], need: Spend) -> StoryBudgets:
    budgets = _each(budgets, scopes, lambda u: u.holding(u.reserved.plus(need)))
    return _with_hold(budgets, step_id, hold)


def _released(budgets: StoryBudgets, step_id: str, scopes: Iterable[BudgetScope]) -> StoryBudgets:
    """The reservation of the call under way is free; those of lost calls stay."""
    hold = budgets.holds.get(step_id)
    if hold is None or not hold.is_open:
        return budgets
    budgets = _each(budgets, scopes, lambda u: u.holding(u.reserved.minus(hold.need)))
    return _with_hold(budgets, step_id, replace(hold, is_open=False) if hold.lost else None)


def _with_hold(budgets: StoryBudgets, step_id: str, hold: Hold | None) -> StoryBudgets:
    holds = {k: v for k, v in budgets.holds.items() if k != step_id}
    return replace(budgets, holds=holds if hold is None else {**holds, step_id: hold})


def _stopped(budgets: StoryBudgets, step_id: str, scopes: Iterable[BudgetScope], now_ms: int) -> StoryBudgets:
    if step_id not in budgets.running:
        return budgets
    budgets = replace(budgets, running=tuple(name for name in budgets.running if name != step_id))
    return _each(budgets, scopes, lambda u: u.ended(now_ms=now_ms))


def _each(budgets: StoryBudgets, scopes: Iterable[BudgetScope], change: Change) -> StoryBudgets:
    changed = {scope_key(scope): change(budgets.usage(scope)) for scope in scopes}
    return replace(budgets, scopes={**budgets.scopes, **changed})


_ACCOUNTS: Mapping[type[Payload], Callable[[StoryState, Any, StoredEvent], StoryBudgets]] = {
    StepStarted: _started,
    StepFinished: _finished,
    StepOutcomeUnknown: _unknown,
    OwnershipTaken: _owned,
    UsageAdjusted: _adjusted,
    BudgetSet: _set,
    BudgetWarning: _warned,
    BudgetExhausted: _exhausted,
}


def _only_budgets(s: StoryState, _p: Payload, _e: StoredEvent) -> StoryState:
    return s


HANDLERS: Mapping[type[Payload], Callable[[StoryState, Any, StoredEvent], StoryState]] = {
    kind: _only_budgets for kind in (UsageAdjusted, BudgetSet, BudgetWarning, BudgetExhausted)
}
"""Events that change budgets and nothing else."""
