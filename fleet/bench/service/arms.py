"""The arms of the solve benchmark that are no council. Each stops where its next call could exceed the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from fleet.bench.row import ArmName
from fleet.bench.service.council import CouncilRules, deliberate
from fleet.bench.service.execution import CaseResult, ProgramCase, Solution
from fleet.bench.service.solved import Solved
from fleet.bench.service.solver import MAX_INPUTS, AuthoredTests, Solver, failures_of, passed_of
from fleet.bench.service.source import calls_in
from fleet.council.candidate import cluster_id_of
from fleet.kernel.errors import BudgetExceeded, ReplyMalformed

MAX_DRAFTS = 16
"""Drafts of one arm, whatever its budget: sampling is flat after about ten."""
MAX_REPAIRS = 12


@dataclass(frozen=True, slots=True)
class _Tried:
    """A draft with what its runs showed."""

    solution: Solution
    passed: int
    results: Mapping[str, CaseResult]

    @property
    def order(self) -> tuple[int, int, str]:
        """Most tests first, then the shortest, then the digest: never the order of arrival (CN-60)."""
        return (-self.passed, self.solution.lines, self.solution.digest)


@dataclass(slots=True)
class _Sampled:
    drafts: list[_Tried] = field(default_factory=list[_Tried])
    ended: str = "drafts"


async def solve(arm: ArmName, solver: Solver, rules: CouncilRules) -> Solved:
    """What this arm chooses. Raises ModelUnavailable, ModelTimeout, SandboxUnavailable: nothing is decided."""
    match arm:
        case "greedy":
            return await _greedy(solver)
        case "resample":
            return await _resample(solver)
        case "best-of-n":
            return await _best_of_n(solver)
        case "plurality":
            return await _plurality(solver)
        case "self-repair":
            return await _self_repair(solver)
        case "council":
            return await deliberate(solver, rules)
        case _:
            assert_never(arm)


async def _draft(solver: Solver, number: int) -> Solution | None:
    """None for a draft without use; BudgetExceeded when there is no room for one."""
    try:
        return await solver.draft(number)
    except ReplyMalformed:
        return None


async def _greedy(solver: Solver) -> Solved:
    try:
        return Solved(await _draft(solver, 0), "first draft")
    except BudgetExceeded:
        return Solved(None, "budget")


async def _authored(solver: Solver) -> AuthoredTests:
    try:
        return await solver.author_tests()
    except (BudgetExceeded, ReplyMalformed):
        return AuthoredTests()


async def _selecting(solver: Solver) -> tuple[ProgramCase, ...]:
    """What this arm selects by: the visible tests, or where there are none, tests that the model writes."""
    return solver.visible or (await _authored(solver)).cases


async def _sampled(solver: Solver, cases: Sequence[ProgramCase], *, until_all_pass: bool) -> _Sampled:
    found = _Sampled()
    for number in range(MAX_DRAFTS):
        try:
            solution = await _draft(solver, number)
        except BudgetExceeded:
            found.ended = "budget"
            break
        if solution is None:
            continue
        found.drafts.append(await _tried(solver, solution, cases))
        if until_all_pass and cases and found.drafts[-1].passed == len(cases):
            found.ended = "tests pass"
            break
    return found


def _best(tried: Sequence[_Tried]) -> Solution | None:
    return min(tried, key=lambda t: t.order).solution if tried else None


def _first(tried: Sequence[_Tried]) -> Solution | None:
    return tried[0].solution if tried else None


async def _resample(solver: Solver) -> Solved:
    cases = await _selecting(solver)
    # Without any test there is nothing to stop for: the first draft is as good as any.
    if not cases:
        return await _greedy(solver)
    found = await _sampled(solver, cases, until_all_pass=True)
    # The first that passes; of drafts that fail, the one that fails least.
    pick = found.drafts[-1].solution if found.ended == "tests pass" else _best(found.drafts)
    return Solved(pick, found.ended, {"first_draft": _first(found.drafts)})


async def _best_of_n(solver: Solver) -> Solved:
    cases = await _selecting(solver)
    found = await _sampled(solver, cases, until_all_pass=False)
    return Solved(_best(found.drafts), found.ended, {"first_draft": _first(found.drafts)})


async def _plurality(solver: Solver) -> Solved:
    authored = await _authored(solver)
    visible = solver.visible
    known = [*authored.calls, *(call for c in visible for call in calls_in(c.code, solver.task.entry_point))]
    inputs = [ProgramCase(f"input-{n}", "call", call) for n, call in enumerate(dict.fromkeys(known).keys())][
        :MAX_INPUTS
    ]
    found = await _sampled(solver, (*visible, *inputs), until_all_pass=False)
    return Solved(
        by_plurality(found.drafts, visible, inputs),
        found.ended,
        {"first_draft": _first(found.drafts), "best_of_n": _best(_counted(found.drafts, visible))},
    )


def _counted(tried: Sequence[_Tried], visible: Sequence[ProgramCase]) -> list[_Tried]:
    return [_Tried(t.solution, passed_of(t.results, visible), t.results) for t in tried]


def by_plurality(
    tried: Sequence[_Tried], visible: Sequence[ProgramCase], inputs: Sequence[ProgramCase]
) -> Solution | None:
    """One of the largest cluster of behaviour among those that pass the visible tests, if any does."""
    passing = [t for t in tried if passed_of(t.results, visible) == len(visible)] or list(tried)
    clusters = [(behaviour_of(t.solution, t.results, inputs), t) for t in passing]
    sizes = Counter(name for name, _ in clusters)
    best = min(clusters, key=lambda c: (-sizes[c[0]], c[1].solution.lines, c[1].solution.digest), default=None)
    return best[1].solution if best else None


def behaviour_of(solution: Solution, results: Mapping[str, CaseResult], inputs: Sequence[ProgramCase]) -> str:
    """Name of the cluster: what the shared inputs show, or the normal form where there are none."""
    shown = {c.code: results[c.id].value or results[c.id].outcome for c in inputs if c.id in results}
    return cluster_id_of(str(solution.normal_digest), shown)


async def _self_repair(solver: Solver) -> Solved:
    cases = await _selecting(solver)
    try:
        draft = await _draft(solver, 0)
    except BudgetExceeded:
        return Solved(None, "budget")
    if draft is None or not cases:
        return Solved(draft, "first draft", {"first_draft": draft})
    latest = await _tried(solver, draft, cases)
    tried, ended = [latest], "tests pass"
    for number in range(1, MAX_REPAIRS + 1):
        if latest.passed == len(cases):
            break
        ended = "repairs"
        try:
            repaired = await solver.repair(latest.solution, failures_of(latest.results, cases), number=number)
        except BudgetExceeded:
            ended = "budget"
            break
        except ReplyMalformed:
            continue
        latest = await _tried(solver, repaired, cases)
        tried.append(latest)
        ended = "tests pass" if latest.passed == len(cases) else "repairs"
    return Solved(_best(tried), ended, {"first_draft": draft})


async def _tried(solver: Solver, solution: Solution, cases: Sequence[ProgramCase]) -> _Tried:
    results: Mapping[str, CaseResult] = await solver.run(solution, cases) if cases else {}
    return _Tried(solution, passed_of(results, cases), results)
