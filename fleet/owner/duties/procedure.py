"""Procedures on trees: pin the base, measure a tree, record report and score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fleet.events.task import TreeMerged
from fleet.events.workspace import CriterionTest, FlakyResults, WorkspaceReported, WorkspaceScored
from fleet.events.workspace import WorkspaceSummary as Summary
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest, EntityId
from fleet.owner.duties.fetch import fetch_repository
from fleet.owner.engineering.independent_tests import passed_tests
from fleet.owner.journal.steps import Work
from fleet.owner.story_environment import failed_environments, make_environment
from fleet.owner.story_repository import hosted_at
from fleet.owner.workbench import Workbench, seat
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.story.guards import binds_criteria, held_waivers, shown_criteria
from fleet.story.intents import CheckoutBase, MeasureTree
from fleet.trees.service import read_changes, read_tree
from fleet.workspace.evidence import E2eDeclaration, FlakyTests, find_flaky
from fleet.workspace.report import WorkspaceReport
from fleet.workspace.service.report import Measurement
from fleet.workspace.service.workspace import WorkspaceService, declared_by
from fleet.workspace.verdict import Waiver, score_workspace

DEVOPS = seat("devops")


def workspace_of(bench: Workbench, prefix: str, work: Work) -> WorkspaceService:
    """A workspace service whose runs are journaled steps below `prefix`."""
    names: dict[str, int] = {}

    async def run(spec: RunSpec) -> RunResult:
        name = _name_of(spec.argv)
        names[name] = names.get(name, 0) + 1
        suffix = f"-{names[name]}" if names[name] > 1 else ""
        return await bench.journal.run(f"{prefix}/{name}{suffix}", spec, work)

    return WorkspaceService(run, bench.blobs)


def _name_of(argv: tuple[str, ...]) -> str:
    script = next((a for a in argv if a.endswith(".py")), argv[0])
    return script.rsplit("/", 1)[-1].removesuffix(".py").replace("_", "-")


async def checkout_base(bench: Workbench, intent: CheckoutBase) -> None:
    """The repository's commit is pinned and its tree recorded, with the environment that it asks for (RC-70, RC-111).

    The repository itself was only read. After an environment that could not be made everything is looked at anew.
    """
    start = bench.state.start
    assert start is not None
    address = hosted_at(bench)
    if address is None:
        staged = await bench.forge.stage(start.repo.url, start.repo.ref)
    else:
        staged = await fetch_repository(bench, address)
    work = Work(seat=DEVOPS, tool="git", op="checkout")
    tries = failed_environments(bench.state)
    prefix = f"base/{tries + 1}" if tries else "base"
    tree = await workspace_of(bench, prefix, work).checkout(staged, toolchain=bench.toolchain)
    toolchain = await make_environment(bench, tree, staged.commit)
    merged = TreeMerged(base_digest=tree, result_digest=tree, commit=staged.commit, files=(), toolchain=toolchain)
    await bench.journal.record("base/merged", merged)


async def measure_tree(bench: Workbench, intent: MeasureTree) -> None:
    """The pipeline ran on the tree; report and score are on record.

    Where only the waivers are others than at the last score, what was measured is scored again.
    """
    tree = Digest(intent.tree)
    score = bench.state.scores.get(tree)
    if tree in bench.state.reports and score is not None and score.rigor == bench.state.rigor:
        await score_again(bench, tree)
        return
    round_ = sum(1 for r in bench.state.reports if r == tree)
    await measure(bench, tree, prefix=f"measure/{tree.hex[:16]}/{bench.state.rigor}/{round_}", task_id=None)


async def measure(
    bench: Workbench, tree: Digest, *, prefix: str, task_id: EntityId | None, commit: str | None = None
) -> WorkspaceReport:
    """As `measure_tree`; the report itself is returned. `commit` is the tree's own one, if it has one already."""
    state = bench.state
    work = Work(seat=seat("qa"), tool="tests", op="pipeline", task_id=task_id)
    run_id = bench.new_id("rn", prefix)
    base = await base_measurement(bench, tree)
    measurement: Measurement = await workspace_of(bench, prefix, work).measure(
        tree,
        run_id=run_id,
        story_id=state.story_id,
        task_id=task_id,
        base=base,
        commit=commit or state.commit or state.base_commit or "0" * 40,
        base_commit=state.base_commit or "0" * 40,
        rigor=state.rigor,
        toolchain=bench.toolchain,
    )
    report = measurement.report
    criteria = await _bound_criteria(bench, measurement, base, prefix=prefix, task_id=task_id)
    flaky = await _flaky_tests(bench, report)
    digest = await bench.blobs.put(measurement.encode())
    reported = WorkspaceReported(
        run_id=run_id,
        task_id=task_id,
        tree_digest=tree,
        report_digest=digest,
        complete=report.complete,
        summary=summary_of(report),
        criteria=criteria,
        flaky=flaky,
    )
    event = await _score(bench, report, flaky)
    await bench.journal.record(f"{prefix}/scored", reported, event)
    return report


async def score_again(bench: Workbench, tree: Digest) -> None:
    """What was measured on the tree is scored under the waivers that hold now (RG-43)."""
    state = bench.state
    report = Measurement.decode(await bench.blobs.get(state.reports[tree].report_digest)).report
    event = await _score(bench, report, state.reports[tree].flaky)
    basis = digest_of_json([len(state.waived_dimensions), *(event.approvals or ())]).hex[:16]
    await bench.journal.record(f"score/{tree.hex[:16]}/{state.rigor}/{report.run_id}/{basis}", event)


async def _score(bench: Workbench, report: WorkspaceReport, flaky: FlakyResults | None) -> WorkspaceScored:
    state = bench.state
    held = held_waivers(state, now_ms=bench.now_ms)
    scored = score_workspace(
        report,
        rigor=state.rigor,
        config=bench.rules.rigor,
        expected_tree=report.tree_digest,
        waivers=[Waiver.model_validate({"approval_id": w.approval_id, "dimension": w.dimension}) for w in held],
        e2e_declaration=await _declared_e2e(bench, report),
        flaky=FlakyTests(frozenset(flaky.unit), frozenset(flaky.e2e)) if flaky is not None else FlakyTests(),
    )
    approvals = {"approvals": [w.approval_id for w in held]} if held else {}
    return WorkspaceScored.model_validate({**scored.model_dump(mode="json"), **approvals})


async def _flaky_tests(bench: Workbench, report: WorkspaceReport) -> FlakyResults | None:
    """The tests on whose results this and earlier reports of the tree disagree; None for the first one (RG-46)."""
    before = bench.state.reports.get(report.tree_digest)
    if before is None:
        return None
    flaky = find_flaky(Measurement.decode(await bench.blobs.get(before.report_digest)).report, report)
    earlier = before.flaky or FlakyResults()
    return FlakyResults(
        unit=tuple(sorted(flaky.unit.union(earlier.unit))), e2e=tuple(sorted(flaky.e2e.union(earlier.e2e)))
    )


async def _declared_e2e(bench: Workbench, report: WorkspaceReport) -> E2eDeclaration | None:
    """What the base says of pages and commands that people see: a change cannot take its own tests away (RG-77)."""
    base = bench.state.base_tree or report.tree_digest
    declared = (await declared_by(bench.blobs, await read_tree(bench.blobs, base))).e2e
    if declared is None:
        return None
    measured = await base_measurement(bench, report.tree_digest)
    suite = (measured.report if measured is not None else report).e2e
    return E2eDeclaration(reason=declared.none, base_has_suite=suite is not None)


async def _bound_criteria(
    bench: Workbench, measured: Measurement, base: Measurement | None, *, prefix: str, task_id: EntityId | None
) -> dict[EntityId, tuple[CriterionTest, ...]] | None:
    """Criterion -> the tests that name it and pass on this tree, none of them written with the change (RG-47).

    Given examples and independent tests are run once more, in a process that never loads the code that they judge.
    """
    tree = measured.report.tree_digest
    if not binds_criteria(bench.state) or base is None:
        return None
    bound: dict[EntityId, list[CriterionTest]] = {c.ac_id: [] for c in bench.criteria}
    for ac_id, test in await _given_tests(bench, measured, base):
        bound[ac_id].append(CriterionTest(test=test, source="given"))
    work = Work(seat=seat("qa"), tool="tests", op="pytest", task_id=task_id)
    for ac_id, shown in await passed_tests(bench, workspace_of(bench, f"{prefix}/criteria", work), tree):
        bound[ac_id].append(shown)
    return {ac_id: tuple(tests) for ac_id, tests in bound.items()}


def criteria_evidence(bench: Workbench, tree: Digest) -> dict[EntityId, tuple[str, ...]]:
    """Criterion -> what shows it: the tests that name it, in stories of before the runs of its tasks."""
    state = bench.state
    if binds_criteria(state):
        return {EntityId(c.ac_id): tuple(t.test for t in c.tests) for c in shown_criteria(state, tree)}
    run = state.reports[tree].run_id
    runs_of: dict[EntityId, tuple[str, ...]] = {}
    for criterion in bench.criteria:
        tasks = [t for t in state.tasks.values() if criterion.ac_id in t.task.acceptance_refs and t.state == "done"]
        runs = [
            state.scores[t.candidate_tree].run_id
            for t in tasks
            if t.candidate_tree and t.candidate_tree in state.scores
        ]
        if tasks:
            runs_of[criterion.ac_id] = (run, *dict.fromkeys(runs))
    return runs_of


async def _given_tests(bench: Workbench, measured: Measurement, base: Measurement) -> list[tuple[EntityId, str]]:
    """Tests of the repository that the story names for a criterion: they passed, and their files are as they were."""
    given_names: Any = bench.state.content.constraints.get("acceptance_tests")
    if not isinstance(given_names, Mapping) or measured.passing is None:
        return []
    named = cast("Mapping[str, Any]", given_names)
    before, after = await read_changes(bench.blobs, base.report.tree_digest, measured.report.tree_digest)
    passed, given = frozenset(measured.passing), list[tuple[EntityId, str]]()
    for criterion in bench.criteria:
        tests: Any = named.get(criterion.ac_id, ())
        for test in map(str, cast("list[Any]", tests) if isinstance(tests, list) else [tests]):
            path = test.partition("::")[0]
            if test in passed and path in before and before[path] == after.get(path):
                given.append((criterion.ac_id, test))
    return given


async def base_measurement(bench: Workbench, tree: Digest) -> Measurement | None:
    """What was measured on the base tree, to compare with; None for the base tree itself."""
    state = bench.state
    if state.base_tree is None or state.base_tree == tree or state.base_tree not in state.reports:
        return None
    return Measurement.decode(await bench.blobs.get(state.reports[state.base_tree].report_digest))


def summary_of(report: WorkspaceReport) -> Summary:
    """The sections of a report in short; a missing section stays missing (RC-69)."""
    raw = report.to_json()

    def part(name: str, *fields: str) -> dict[str, object] | None:
        section = raw.get(name)
        return {f: section[f] for f in fields if f in section} if section else None

    tests = ("passed", "failed", "errored", "skipped")
    return Summary.model_validate(
        {
            "build_ok": report.build.ok if report.build else None,
            "unit": part("unit", *tests),
            "coverage": part("coverage", "new_pct", "new_lines", "new_covered", "total_pct"),
            "static": part("static", "ok", "gate", "new_critical", "new_major", "new_minor"),
            "lint": part("lint", "ok", "errors", "warnings"),
            "e2e": part("e2e", *tests),
            "secrets_found": report.security.secrets_found if report.security else None,
        }
    )
