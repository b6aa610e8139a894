"""Make the WorkspaceReport of one tree from parsed results, against those of the base tree (RC-60..RC-69). Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal

from fleet.kernel.digest import canonical_json
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.kernel.types import Frozen, Rigor, StageStatus
from fleet.trees.service import is_test
from fleet.workspace.report import (
    SECRETS,
    BuildSection,
    CoverageSection,
    LintSection,
    PatchSection,
    SecuritySection,
    StageName,
    StageRun,
    StaticSection,
    TestFailure,
    TestSection,
    Timings,
    ToolRun,
    WorkspaceReport,
    static_gate,
)
from fleet.workspace.service.results import (
    CheckSummary,
    CodeFinding,
    JudgedRun,
    JUnitSuite,
    LineHits,
    Severity,
    StageRecord,
    SuiteCase,
)
from fleet.workspace.service.specs import ALL_STAGES

_CRITICAL = frozenset(
    {"S102", "S202", "S307", "S501", "S502", "S506", "S507", "S602", "S604", "S605", "S608", "S701", "E999", "F821"}
)
_MINOR = frozenset({"S101", "S105", "S106", "S107", "S110", "S112", "S311", "S404", "S603", "S607"})
_MAX_FAILURES = 50
_WORST: Sequence[StageStatus] = ("timeout", "error", "failed", "passed", "skipped")


class AskedTests(Frozen):
    """What can be asked of the tests of a tree outside of its code's process."""

    canaries: tuple[str, ...] = ()
    """Test files in which a test that must fail did."""
    piped: tuple[str, ...] = ()
    """Ids of the tests that passed in a process that never loads the project's code."""
    milliseconds: Mapping[str, int] = {}
    """Test file -> how long those took."""
    changed: tuple[str, ...] = ()
    """Files of the tests that a run of them changes."""


class Measurement(Frozen):
    """A report and what the next one is compared with: findings and failing tests by name (PL-52, RC-65)."""

    report: WorkspaceReport
    lint: tuple[CodeFinding, ...] = ()
    static: tuple[CodeFinding, ...] = ()
    failing: tuple[str, ...] = ()
    """Ids of the tests that failed or errored, those of `known_failing` too."""
    failing_e2e: tuple[str, ...] = ()
    passing: tuple[str, ...] | None = None
    """Ids of the tests that passed; None in measurements from before it was kept, or where none ran."""
    judged: AskedTests | None = None
    """What changes of this tree can be asked; None in measurements from before it was kept, or where nothing can."""

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.model_dump(mode="json", by_alias=True, exclude_none=True))

    def keeps(self, base: Measurement | None) -> bool:
        """Whether the project's tests hold; without evidence only where there was none before either (RG-11)."""
        report = self.report
        if report.unit is not None:
            return not (report.unit.failed or report.unit.errored)
        stage = report.stage("unit")
        is_unmeasured = stage is not None and stage.status in ("error", "timeout")
        return not is_unmeasured and (base is None or base.report.unit is None)

    @classmethod
    def decode(cls, data: bytes) -> Measurement:
        """The measurement that `encode` wrote."""
        return cls.model_validate_json(data)


@dataclass(frozen=True, slots=True)
class ReportHead:
    """What a report is about (RC-60). `base` is the measurement to compare with; None: everything counts as new."""

    run_id: EntityId
    story_id: StoryId
    tree: Digest
    rigor: Rigor
    task_id: EntityId | None = None
    commit: str | None = None
    base_commit: str | None = None
    base: Measurement | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a pipeline run left, parsed: None where a file is missing or is not of its form."""

    summary: CheckSummary | None = None
    suite: JUnitSuite | None = None
    judged: JudgedRun | None = None
    is_judged: bool = False
    """Whether the run was asked for what the judge of its tests saw."""
    e2e: JUnitSuite | None = None
    preview: JUnitSuite | None = None
    pictures: tuple[Digest, ...] = ()
    """Pictures of the preview's pages, in their order."""
    coverage: LineHits | None = None
    lint: tuple[CodeFinding, ...] | None = None
    static: tuple[CodeFinding, ...] | None = None
    blobs: Mapping[str, Digest] = field(default_factory=dict[str, Digest])
    """Section -> digest of its result file."""
    log: Digest | None = None
    total_ms: int | None = None
    changed: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """Path -> new or changed lines of every changed text file."""
    secrets: int = 0
    """Secrets on added lines."""
    patch: PatchSection | None = None


def build_measurement(head: ReportHead, out: Outputs) -> Measurement:
    """The report of the tree, and what later ones are compared with; a section without evidence is absent (RC-69)."""
    records, base = _records(out), head.base
    stages = _stages(records, out.log)
    ran = {r.name for r in records if r.status in ("passed", "failed")}
    unit = _unit(base, out) if "unit" in ran else None
    end_to_end = _end_to_end(records, out)
    e2e = _suite(end_to_end, base.failing_e2e if base else (), out.blobs.get("e2e"))
    if e2e is not None and "preview" in ran:
        e2e = e2e.model_copy(update={"preview": out.blobs.get("preview"), "artifacts": out.pictures})
    static = out.static if "static" in ran else None
    lint = out.lint if "lint" in ran else None
    new_static = None if static is None else _new(static, base.static if base else ())
    report = WorkspaceReport(
        run_id=head.run_id,
        story_id=head.story_id,
        task_id=head.task_id,
        commit=head.commit,
        base_commit=head.base_commit,
        tree_digest=head.tree,
        rigor=head.rigor,
        complete=_is_complete(out),
        stages=stages,
        timings=_timings(stages, out.total_ms),
        build=_build(stages, out),
        unit=unit,
        coverage=_coverage(out) if unit is not None else None,
        static=_static(new_static, out),
        lint=_lint(lint, base, out),
        e2e=e2e,
        security=_security(new_static, out),
        patch=out.patch,
    )
    return Measurement(
        report=report,
        lint=lint or (),
        static=static or (),
        failing=out.suite.failing if out.suite else (),
        failing_e2e=end_to_end.failing if end_to_end else (),
        passing=out.suite.passing if out.suite and unit is not None else None,
        judged=_judged(out.judged) if unit is not None and out.judged is not None else None,
    )


def _judged(run: JudgedRun) -> AskedTests:
    passed = [test for test in run.piped if test.outcome == "passed"]
    milliseconds: dict[str, int] = {}
    for test in passed:
        file = test.id.partition("::")[0]
        milliseconds[file] = milliseconds.get(file, 0) + round(test.s * 1000)
    return AskedTests(
        canaries=tuple(sorted(path for path, how in run.canaries.items() if how == "failed")),
        piped=tuple(test.id for test in passed),
        milliseconds=milliseconds,
        changed=run.changed,
    )


def _unit(base: Measurement | None, out: Outputs) -> TestSection | None:
    """Returns the project's own tests.

    One that passed on the base and did not run here is an error of this tree (PL-52).

    How many cases of one test function ran is compared, as the names of its cases may change with the code.
    """
    suite, before = out.suite, base.passing if base is not None else None
    if suite is not None and before:
        ran = Counter(_function_of(c.id) for c in suite.cases if c.outcome != "skipped")
        gone = sorted((Counter(map(_function_of, before)) - ran).items())
        suite = JUnitSuite((*suite.cases, *(_not_run(name, count) for name, count in gone)))
    if suite is not None and base is not None and base.judged is not None and out.judged is not None:
        suite = JUnitSuite((*suite.cases, *_contradicted(suite, base.judged, out.judged)))
    return _suite(suite, base.failing if base else (), out.blobs.get("unit"))


def _contradicted(suite: JUnitSuite, base: AskedTests, run: JudgedRun) -> Iterator[SuiteCase]:
    """What passed by the report of the code's own process, and not before the judge (RC-80)."""
    for path in sorted(set(run.changed) - set(base.changed)):
        yield SuiteCase(id=path, outcome="errored", message="the code changed this file of the tests while they ran")
    red = {_function_of(case) for case in suite.failing}
    outcomes: dict[str, set[str]] = {}
    for test in run.piped:
        outcomes.setdefault(_function_of(test.id), set()).add(test.outcome)
    ending = outcomes.pop("", set())
    for name in sorted({_function_of(test) for test in base.piped} - red):
        if name.partition("::")[0] in run.late:
            continue
        if outcomes.get(name, {"missing"}) != {"passed"}:
            yield SuiteCase(id=name, outcome="errored", message=_CONTRADICTED)
        elif ending:
            yield SuiteCase(id=name, outcome="errored", message="the run of it without the code in its process was cut")
            return


_CONTRADICTED = (
    "it passes by the report of the process that loads the code, and not when it calls the code over a pipe, as it did "
    "before the change"
)


def _function_of(test: str) -> str:
    return test.partition("[")[0]


def _not_run(name: str, count: int) -> SuiteCase:
    which = "it" if count == 1 else f"{count} of its cases"
    return SuiteCase(id=name, outcome="errored", message=f"{which} passed before the change and did not run now")


def _end_to_end(records: Sequence[StageRecord], out: Outputs) -> JUnitSuite | None:
    """The end-to-end tests and the pages of the preview; None when either could not be measured (RC-79, RC-103)."""
    result_of = {"e2e": out.e2e, "preview": out.preview}
    parts = [r for r in records if r.name in result_of]
    if any(r.status in ("error", "timeout") for r in parts):
        return None
    suites = [result_of[r.name] for r in parts if r.status in ("passed", "failed")]
    return JUnitSuite(tuple(case for suite in suites if suite for case in suite.cases)) if suites else None


def _is_complete(out: Outputs) -> bool:
    names = {s.name for s in out.summary.stages} if out.summary else set[str]()
    build = out.summary.stage("build") if out.summary else None
    return names >= set(ALL_STAGES) and build is not None and build.status == "passed"


def _records(out: Outputs) -> list[StageRecord]:
    """The shim's records; a stage whose result file cannot be read, or says what its exit code denies, is `error`.

    RC-79. A program that failed has tests that failed: without any its report is not its own.
    """
    suites = {"unit": out.suite, "e2e": out.e2e, "preview": out.preview}
    result_of = {**suites, "lint": out.lint, "static": out.static}
    records = out.summary.stages if out.summary else ()
    return [
        _settled(
            r,
            readable=result_of.get(r.name, out) is not None
            and not _is_denied(r, suites.get(r.name))
            and (r.name != "unit" or not out.is_judged or out.judged is not None),
        )
        for r in records
    ]


def _is_denied(record: StageRecord, suite: JUnitSuite | None) -> bool:
    return suite is not None and bool(suite.cases) and record.status == "failed" and not suite.failing


def _stages(records: Sequence[StageRecord], log: Digest | None) -> tuple[StageRun, ...]:
    """The stages by the report's names: `lint` is part of `static`, `preview` of `e2e`."""
    groups: dict[StageName, list[StageRecord]] = {}
    for record in records:
        name = _stage_name(record.name)
        if name:
            groups.setdefault(name, []).append(record)
    return tuple(_stage_run(name, group, log) for name, group in groups.items())


def _settled(record: StageRecord, *, readable: bool) -> StageRecord:
    if readable or record.status not in ("passed", "failed"):
        return record
    return record.model_copy(update={"status": "error"})


def _stage_name(name: str) -> StageName | None:
    match name:
        case "build" | "unit" | "e2e" | "static":
            return name
        case "lint":
            return "static"
        case "preview":
            return "e2e"
        case _:
            return None


def _stage_run(name: StageName, records: Sequence[StageRecord], log: Digest | None) -> StageRun:
    starts = [r.started_at_ms for r in records if r.started_at_ms is not None]
    ends = [r.finished_at_ms for r in records if r.finished_at_ms is not None]
    # Without end-to-end tests there may be a preview all the same: what was skipped says nothing beside what ran.
    counted = [r for r in records if r.status != "skipped"] or records
    codes = [r.exit_code for r in counted if r.exit_code is not None]
    return StageRun(
        name=name,
        status=next(s for s in _WORST if any(r.status == s for r in records)),
        exit_code=next((code for code in codes if code), codes[0] if codes else None),
        started_at=min(starts, default=None),
        finished_at=max(ends, default=None),
        log=log,
    )


def _timings(stages: Sequence[StageRun], total_ms: int | None) -> Timings:
    spent = {
        f"{s.name}_ms": max(0, s.finished_at - s.started_at)
        for s in stages
        if s.started_at is not None and s.finished_at is not None
    }
    return Timings(**spent, total_ms=total_ms)


def _build(stages: Sequence[StageRun], out: Outputs) -> BuildSection | None:
    stage = next((s for s in stages if s.name == "build"), None)
    if stage is None or stage.status not in ("passed", "failed"):
        return None
    return BuildSection(ok=stage.status == "passed", exit_code=stage.exit_code, log=out.log)


def _suite(suite: JUnitSuite | None, failing_on_base: Sequence[str], junit: Digest | None) -> TestSection | None:
    if suite is None or not suite.cases:
        # Nothing collected is no evidence (RG-11), and lets a declaration of RG-77 hold.
        return None
    failing_before = set(failing_on_base) & set(suite.failing)
    cases = [c for c in suite.cases if c.id not in failing_before]
    count = Counter(c.outcome for c in cases)
    failures = [c for c in cases if c.outcome in ("failed", "errored")]
    return TestSection(
        ok=not failures,
        passed=count["passed"],
        failed=count["failed"],
        errored=count["errored"],
        skipped=count["skipped"],
        known_failing=tuple(sorted(failing_before)),
        failures=tuple(TestFailure(id=c.id, message=c.message, file=c.file, line=c.line) for c in failures)[
            :_MAX_FAILURES
        ],
        junit=junit,
    )


def _coverage(out: Outputs) -> CoverageSection | None:
    """Coverage of the changed lines of product code; tests do not cover themselves (RG-14)."""
    if out.coverage is None:
        return None
    product = {path: lines for path, lines in out.coverage.files.items() if not is_test(path)}
    new = [
        product[path][n]
        for path, numbers in out.changed.items()
        if path in product
        for n in numbers
        if n in product[path]
    ]
    every = [hit for lines in product.values() for hit in lines.values()]
    return CoverageSection(
        new_pct=_percent(new),
        new_lines=len(new),
        new_covered=sum(new),
        total_pct=_percent(every),
        tool=out.summary.coverage_tool if out.summary else "",
        report=out.blobs.get("coverage"),
    )


def _percent(hits: Sequence[bool]) -> Decimal | None:
    if not hits:
        return None
    return (Decimal(100) * sum(hits) / len(hits)).quantize(Decimal("0.01"), rounding=ROUND_DOWN)


def severity(code: str) -> Severity:
    """How bad a finding of the static stage is: text run as code or shell, and undefined names, are critical."""
    if code in _CRITICAL:
        return "critical"
    return "minor" if code in _MINOR or code.startswith("B") else "major"


def _new(findings: Sequence[CodeFinding], base: Sequence[CodeFinding]) -> list[CodeFinding]:
    """Findings that the base lacks; the same one twice where it was once counts once."""
    rest = Counter(findings) - Counter(base)
    return sorted(rest.elements(), key=lambda f: (f.path, f.code, f.message))


def _static(new: Sequence[CodeFinding] | None, out: Outputs) -> StaticSection | None:
    if new is None:
        return None
    counts = _severities(new)
    gate = static_gate(ran=True, new_critical=counts["critical"], new_major=counts["major"])
    return StaticSection(
        ok=gate != "ERROR",
        gate=gate,
        new_critical=counts["critical"],
        new_major=counts["major"],
        new_minor=counts["minor"],
        tools=(_tool_run(out).model_copy(update={"findings": out.blobs.get("static")}),),
    )


def _severities(new: Sequence[CodeFinding]) -> Counter[Severity]:
    # A test may open a shell or use a fixed password: security rules are about the product.
    return Counter(_severity(f) for f in new if not (_is_security(f) and is_test(f.path)))


def _severity(finding: CodeFinding) -> Severity:
    return finding.severity or severity(finding.code)


def _is_security(finding: CodeFinding) -> bool:
    """Whether it is one of bandit's rules, as ruff numbers them; other analysers have codes of other forms."""
    return re.fullmatch(r"S\d{3}", finding.code) is not None


def _tool(out: Outputs, stage: str) -> str:
    """What measured in the stage; summaries of the first form name no tool, it was ruff."""
    record = out.summary.stage(stage) if out.summary else None
    return (record.tool if record else "") or "ruff"


def _tool_run(out: Outputs) -> ToolRun:
    name = _tool(out, "static")
    return ToolRun(name=name, version=out.summary.tools.get(name, "") if out.summary else "")


def _lint(findings: Sequence[CodeFinding] | None, base: Measurement | None, out: Outputs) -> LintSection | None:
    if findings is None:
        return None
    new = _new(findings, base.lint if base else ())
    warnings = sum(f.severity == "minor" for f in new)
    errors = len(new) - warnings
    return LintSection(ok=errors == 0, errors=errors, warnings=warnings, tool=_tool(out, "lint"))


def _security(new: Sequence[CodeFinding] | None, out: Outputs) -> SecuritySection:
    """Secrets by our own patterns, on every language; rules about security only where an analyser has such (ruff)."""
    tools, counts = [ToolRun(name=SECRETS)], None
    if new is not None and _tool(out, "static") == "ruff":
        counts = _severities([f for f in new if _is_security(f)])
        tools.append(_tool_run(out))
    return SecuritySection(
        secrets_found=out.secrets,
        critical=counts["critical"] if counts is not None else None,
        high=counts["major"] if counts is not None else None,
        tools=tuple(tools),
    )
