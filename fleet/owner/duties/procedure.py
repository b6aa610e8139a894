"""Procedures on trees: pin the base, measure a tree, record report and score."""

from __future__ import annotations

from fleet.events.task import TreeMerged
from fleet.events.workspace import WorkspaceReported, WorkspaceScored
from fleet.events.workspace import WorkspaceSummary as Summary
from fleet.kernel.ids import Digest, EntityId
from fleet.owner.duties.fetch import fetch_repository
from fleet.owner.journal.steps import Work
from fleet.owner.story_repository import hosted_at
from fleet.owner.workbench import Workbench, seat
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.story.intents import CheckoutBase, MeasureTree
from fleet.workspace.report import WorkspaceReport
from fleet.workspace.service.report import Measurement
from fleet.workspace.service.workspace import WorkspaceService
from fleet.workspace.verdict import score_workspace

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
    """The repository's commit is pinned and its tree recorded; the repository itself was only read (RC-70)."""
    start = bench.state.start
    assert start is not None
    address = hosted_at(bench)
    if address is None:
        staged = await bench.forge.stage(start.repo.url, start.repo.ref)
    else:
        staged = await fetch_repository(bench, address)
    work = Work(seat=DEVOPS, tool="git", op="checkout")
    tree = await workspace_of(bench, "base", work).checkout(staged, toolchain=bench.toolchain)
    merged = TreeMerged(base_digest=tree, result_digest=tree, commit=staged.commit, files=())
    await bench.journal.record("base/merged", merged)


async def measure_tree(bench: Workbench, intent: MeasureTree) -> None:
    """The pipeline ran on the tree; report and score are on record."""
    tree = Digest(intent.tree)
    round_ = sum(1 for r in bench.state.reports if r == tree)
    await measure(bench, tree, prefix=f"measure/{tree.hex[:16]}/{bench.state.rigor}/{round_}", task_id=None)


async def measure(
    bench: Workbench, tree: Digest, *, prefix: str, task_id: EntityId | None, commit: str | None = None
) -> WorkspaceReport:
    """As `measure_tree`; the report itself is returned. `commit` is the tree's own one, if it has one already."""
    state = bench.state
    work = Work(seat=seat("qa"), tool="tests", op="pipeline", task_id=task_id)
    run_id = bench.new_id("rn", prefix)
    measurement: Measurement = await workspace_of(bench, prefix, work).measure(
        tree,
        run_id=run_id,
        story_id=state.story_id,
        task_id=task_id,
        base=await base_measurement(bench, tree),
        commit=commit or state.commit or state.base_commit or "0" * 40,
        base_commit=state.base_commit or "0" * 40,
        rigor=state.rigor,
        toolchain=bench.toolchain,
    )
    report = measurement.report
    digest = await bench.blobs.put(measurement.encode())
    reported = WorkspaceReported(
        run_id=run_id,
        task_id=task_id,
        tree_digest=tree,
        report_digest=digest,
        complete=report.complete,
        summary=summary_of(report),
    )
    scored = score_workspace(
        report,
        rigor=state.rigor,
        config=bench.rules.rigor,
        expected_tree=tree,
    )
    event = WorkspaceScored.model_validate(scored.model_dump(mode="json"))
    await bench.journal.record(f"{prefix}/scored", reported, event)
    return report


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
