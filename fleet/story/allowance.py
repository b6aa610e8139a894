"""What a story may still spend: pure decisions over its recorded budgets and the configured limits (MB-20..MB-25)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from fleet.events.budget import BudgetExhausted, BudgetScope, BudgetWarning
from fleet.events.step import Reserve
from fleet.kernel.errors import BudgetExceeded
from fleet.kernel.ids import StepId
from fleet.kernel.types import BudgetLimit
from fleet.models.engine_config import Price
from fleet.models.profiles import Budgets, StepCaps
from fleet.models.routing.budget import (
    QUANTITIES,
    BudgetLimits,
    BudgetTotals,
    Spend,
    crossings,
    fit_max_tokens,
    reserve,
    spent_out,
)
from fleet.models.usage import cost_of
from fleet.story.budgets import reserved_spend, scope_key, scopes_of_work
from fleet.story.state import StoryState


@dataclass(frozen=True, slots=True)
class CallNeed:
    """What a model call wants: whom it counts for, and how large it may get."""

    step_id: StepId
    role: str
    prompt_tokens: int
    """Upper guess of the prompt."""
    max_tokens: int
    """Wanted bound of the reply."""
    task_id: str | None = None
    council_id: str | None = None
    price: Price | None = None
    """Of the dearest engine that may answer; None when none has a price."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """A call that every scope can hold: its reply bound, its reservation, and the warnings that come with it."""

    max_tokens: int
    reserve: Reserve
    warnings: tuple[BudgetWarning, ...]


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One limit of one scope, or a quantity without limit that was used."""

    scope: str
    id: str
    quantity: BudgetLimit
    limit: int | None
    """None is unlimited."""
    spent: int
    reserved: int

    @property
    def left(self) -> int | None:
        """What is free; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.spent - self.reserved)


def limits_of(state: StoryState, config: Budgets | None, scope: BudgetScope) -> BudgetLimits:
    """The limits that bind the scope: those that were set, else the configured ones.

    A council is bound by what it was opened with as well; the tighter one holds until somebody sets another.
    """
    known = state.budgets.limits.get(scope_key(scope))
    if known is not None:
        return BudgetLimits.model_validate(dict(known))
    configured: BudgetLimits = getattr(config, scope.kind) if config is not None else BudgetLimits()
    council = state.councils.get(scope.id) if scope.kind == "council" else None
    if council is None:
        return configured
    opened = council.opened.budget
    own = BudgetLimits(tokens=opened.tokens, wall_ms=opened.wall_s * 1000, gpu_ms=opened.gpu_ms)
    return _tightest((*own.bound, *configured.bound))


@lru_cache(maxsize=256)
def _tightest(bounds: tuple[tuple[BudgetLimit, int], ...]) -> BudgetLimits:
    """The lowest of the limits of each quantity; remembered, for every call of a council asks for the same."""
    lowest = dict[str, int]()
    for name, limit in bounds:
        lowest[name] = min(limit, lowest.get(name, limit))
    return BudgetLimits(**lowest)


def allow_call(
    state: StoryState,
    config: Budgets,
    need: CallNeed,
    *,
    now_ms: int,
    outer: Mapping[BudgetScope, tuple[BudgetTotals, BudgetLimits]] | None = None,
) -> Allowance:
    """The call as every scope can hold it, its reply lowered to what is left if need be (MB-22).

    Args:
        outer: what scopes beyond the story have used today, and their limits.

    Raises:
        BudgetExceeded: a scope cannot hold a useful call; `kind`, `id`, `quantity`, `limit`, `used` and `need` name it.
    """
    work = scopes_of_work(state.story_id, role=need.role, task_id=need.task_id, council_id=need.council_id)
    scopes = (*work, BudgetScope(kind="step", id=need.step_id))
    bounds = {scope: _bounds(state, config, scope, now_ms) for scope in scopes}
    max_tokens = need.max_tokens
    for scope, (totals, limits) in {**(outer or {}), **bounds}.items():
        max_tokens = _fitted(scope, totals, limits, need, max_tokens)
    held = _reserve(need, max_tokens)
    warnings: list[BudgetWarning] = []
    for scope, (totals, limits) in bounds.items():
        after = _reserved(scope, totals, limits, reserved_spend(held, calls=1))
        if scope.kind != "step":
            warnings += _warnings(state, scope, after, limits)
    return Allowance(max_tokens, held, tuple(warnings))


def _bounds(state: StoryState, config: Budgets, scope: BudgetScope, now_ms: int) -> tuple[BudgetTotals, BudgetLimits]:
    return state.budgets.usage(scope).totals(now_ms=now_ms), limits_of(state, config, scope)


def _fitted(scope: BudgetScope, totals: BudgetTotals, limits: BudgetLimits, need: CallNeed, max_tokens: int) -> int:
    _require(scope, totals, limits)
    try:
        return fit_max_tokens(need.prompt_tokens, max_tokens, scopes={scope.kind: (totals, limits)}, price=need.price)
    except BudgetExceeded as error:
        raise _at(scope, error) from error


def _reserved(scope: BudgetScope, totals: BudgetTotals, limits: BudgetLimits, need: Spend) -> BudgetTotals:
    try:
        return reserve(totals, need, limits=limits, scope=scope.kind)
    except BudgetExceeded as error:
        raise _at(scope, error) from error


def _require(scope: BudgetScope, totals: BudgetTotals, limits: BudgetLimits) -> None:
    quantity = spent_out(totals, limits)
    if quantity is not None:
        raise _used_up(scope, totals, limits, quantity)


def _used_up(scope: BudgetScope, totals: BudgetTotals, limits: BudgetLimits, quantity: BudgetLimit) -> BudgetExceeded:
    limit, used = limits.of(quantity), totals.used.of(quantity)
    return BudgetExceeded(
        f"the {scope.kind} budget of {limit} {quantity} is used up ({used} used); raise the budget or stop here",
        scope=scope.kind,
        kind=scope.kind,
        id=scope.id,
        quantity=quantity,
        limit=limit,
        used=used,
        need=1,
    )


def _at(scope: BudgetScope, error: BudgetExceeded) -> BudgetExceeded:
    return BudgetExceeded(error.message, **{**error.details, "kind": scope.kind, "id": scope.id})


def _reserve(need: CallNeed, max_tokens: int) -> Reserve:
    price = need.price
    return Reserve(
        tokens=need.prompt_tokens + max_tokens,
        output_tokens=max_tokens,
        cost_microusd=cost_of(price, tokens_in=need.prompt_tokens, tokens_out=max_tokens) if price else None,
    )


def _warnings(
    state: StoryState, scope: BudgetScope, totals: BudgetTotals, limits: BudgetLimits
) -> Iterable[BudgetWarning]:
    """80 % is said once per scope and limit (MB-25)."""
    usage = state.budgets.usage(scope)
    for crossing in crossings(Spend(), totals.used, limits):
        limit = limits.of(crossing.quantity)
        if limit and usage.warned.get(crossing.quantity) != limit:
            used = totals.used.of(crossing.quantity)
            yield BudgetWarning(scope=scope, limit=crossing.quantity, used=used, max=limit)


def allow_again(state: StoryState, config: Budgets, need: CallNeed, *, now_ms: int) -> None:
    """A call whose reservation is on record may be made again: it is held already, with those that were lost.

    Raises:
        BudgetExceeded: the owners that ended in the middle of it may have used all that there was.
    """
    work = scopes_of_work(state.story_id, role=need.role, task_id=need.task_id, council_id=need.council_id)
    for scope in work:
        totals, limits = _bounds(state, config, scope, now_ms)
        over: list[BudgetLimit] = [
            name for name in QUANTITIES if (limits.of(name) or totals.used.of(name)) < totals.used.of(name)
        ]
        if over:
            raise _used_up(scope, totals, limits, over[0])


def require_room(
    state: StoryState,
    config: Budgets,
    *,
    task_id: str | None,
    now_ms: int,
    quantities: tuple[BudgetLimit, ...] = QUANTITIES,
) -> None:
    """Something new may start in the story and the task. Raises BudgetExceeded when one of these is used up there."""
    work = scopes_of_work(state.story_id, role="any", task_id=task_id, council_id=None)
    for scope in work[:-1]:
        totals, limits = _bounds(state, config, scope, now_ms)
        bound = BudgetLimits(**{name: limits.of(name) for name in quantities})
        _require(scope, totals, bound)


def require_steps(state: StoryState, caps: StepCaps, *, task_id: str | None) -> None:
    """One more step may start in the story and the task (MB-42).

    Raises:
        BudgetExceeded: there are as many as may be; `scope`, `quantity`, `limit` and `used` say where.
    """
    of_task = sum(step.started.task_id == task_id for step in state.steps.values()) if task_id is not None else 0
    for scope, used, most in (("task", of_task, caps.task), ("story", len(state.steps), caps.story)):
        if used >= most:
            what = f"task {task_id}" if scope == "task" else f"story {state.story_id}"
            raise BudgetExceeded(
                f"{what} has taken {used} steps, as many as budgets.steps.{scope} of config/models.yaml allows: see "
                "what it repeats; then raise that limit and unpark the story, or close it",
                scope=scope,
                quantity="steps",
                limit=most,
                used=used,
            )


def used_up(
    state: StoryState, config: Budgets, *, role: str, task_id: str | None, now_ms: int
) -> BudgetExceeded | None:
    """The limit of story, task or role that is spent; None while there is room (RT-30 step 11).

    What calls under way hold is not counted: a tool call takes nothing of it, and most of it comes back.
    """
    for scope in scopes_of_work(state.story_id, role=role, task_id=task_id, council_id=None):
        totals, limits = _bounds(state, config, scope, now_ms)
        spent = BudgetTotals(spent=totals.spent)
        if (quantity := spent_out(spent, limits)) is not None:
            return _used_up(scope, spent, limits, quantity)
    return None


def exhaustion_of(error: BudgetExceeded) -> BudgetExhausted | None:
    """The event that says which limit stopped a call; None when the limit is not one of the story's scopes."""
    d = error.details
    if d.get("kind") in (None, "platform", "project", "step") or d.get("limit") is None:
        return None
    return BudgetExhausted(
        scope=BudgetScope(kind=d["kind"], id=d["id"]), limit=d["quantity"], used=d["used"], max=d["limit"]
    )


def budget_lines(state: StoryState, config: Budgets | None, *, now_ms: int | None = None) -> tuple[BudgetLine, ...]:
    """Every limit of the story and of the scopes used in it, outer to inner. What has no limit if it was used.

    Args:
        config: None leaves out what is only configured.
    """
    story = BudgetScope(kind="story", id=state.story_id)
    others = [_scope(key) for key in state.budgets.scopes if key != scope_key(story)]
    others += [_scope(key) for key in state.budgets.limits if key not in state.budgets.scopes]
    order = ("task", "council", "role")
    found: list[BudgetLine] = []
    for scope in (story, *sorted((s for s in others if s.kind in order), key=lambda s: order.index(s.kind))):
        totals, limits = state.budgets.usage(scope).totals(now_ms=now_ms), limits_of(state, config, scope)
        for name in QUANTITIES:
            limit, spent, held = limits.of(name), totals.spent.of(name), totals.reserved.of(name)
            if limit is not None or spent or held:
                found.append(BudgetLine(scope.kind, scope.id, name, limit, spent, held))
    return tuple(found)


def _scope(key: str) -> BudgetScope:
    kind, _, name = key.partition(":")
    return BudgetScope.model_validate({"kind": kind, "id": name})
