"""The WorkspaceReport is made from parsed results, against those of the base tree."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.ids import EntityId, StoryId
from fleet.workspace.service.report import Measurement, Outputs, ReportHead, build_measurement, severity
from fleet.workspace.service.results import CheckSummary, CodeFinding, JUnitSuite, LineHits, StageRecord, SuiteCase

TREE = digest_of(b"tree")
HEAD = ReportHead(run_id=EntityId("rn-1"), story_id=StoryId("st-1"), tree=TREE, rigor="L1")
NAMES = ("build", "unit", "lint", "static", "e2e")


def record(name: str, **fields: object) -> StageRecord:
    defaults = {"status": "passed", "exit_code": 0, "started_at_ms": 1000, "finished_at_ms": 1500}
    return StageRecord.model_validate({"name": name, **defaults, **fields})


def summary(*records: StageRecord) -> CheckSummary:
    given = {r.name: r for r in records}
    stages = tuple(given.get(name, record(name)) for name in NAMES)
    return CheckSummary(schema=1, stages=stages, tools={"ruff": "0.14"})  # type: ignore[call-arg]


def case(name: str, outcome: str = "passed") -> SuiteCase:
    return SuiteCase(id=name, outcome=outcome, message="no", file="tests/test_a.py", line=3)  # type: ignore[arg-type]


def finding(code: str, path: str = "a.py", message: str = "m") -> CodeFinding:
    return CodeFinding(path=path, code=code, message=message)


GOOD = Outputs(
    summary=summary(),
    suite=JUnitSuite((case("t1"), case("t2"))),
    e2e=JUnitSuite((case("e1"),)),
    coverage=LineHits({"src/a.py": {1: True, 2: True, 3: False}, "tests/test_a.py": {1: True}}),
    lint=(),
    static=(),
    blobs={"unit": TREE, "coverage": TREE},
    log=TREE,
    total_ms=3000,
    changed={"src/a.py": (2, 3, 4), "tests/test_a.py": (1,), "README.md": (1,)},
)


def base(**fields: object) -> Measurement:
    return replace_measurement(build_measurement(HEAD, GOOD), **fields)


def replace_measurement(measurement: Measurement, **fields: object) -> Measurement:
    return measurement.model_copy(update=fields)


@pytest.mark.rule("RC-60", "RC-61", "RC-62", "RC-63", "RC-64", "RC-65", "RC-66", "RC-67")
def test_report_of_a_sound_run_has_every_section() -> None:
    report = build_measurement(HEAD, GOOD).report
    assert report.complete is True
    assert report.build is not None
    assert (report.build.ok, report.build.exit_code) == (True, 0)
    assert report.unit is not None
    assert (report.unit.ok, report.unit.passed, report.unit.junit) == (True, 2, TREE)
    assert report.static is not None
    assert (report.static.ok, report.static.gate, report.static.tools[0].version) == (True, "OK", "0.14")
    assert report.lint is not None
    assert (report.lint.ok, report.lint.errors) == (True, 0)
    assert report.e2e is not None
    assert report.security is not None
    assert (report.security.secrets_found, report.security.critical) == (0, 0)
    assert [stage.name for stage in report.stages] == ["build", "unit", "static", "e2e"]
    assert (report.timings.build_ms, report.timings.static_ms, report.timings.total_ms) == (500, 500, 3000)


@pytest.mark.rule("RG-14")
def test_coverage_counts_changed_executable_lines_of_product_code() -> None:
    coverage = build_measurement(HEAD, GOOD).report.coverage
    assert coverage is not None
    assert (coverage.new_lines, coverage.new_covered, coverage.new_pct) == (2, 1, Decimal("50.00"))
    assert coverage.total_pct == Decimal("66.66")
    none_new = build_measurement(HEAD, replace(GOOD, changed={"README.md": (1,)})).report.coverage
    assert none_new is not None
    assert (none_new.new_lines, none_new.new_pct) == (0, None)


@pytest.mark.rule("PL-52")
def test_tests_failing_on_the_base_are_excluded_by_name_and_listed() -> None:
    suite = JUnitSuite((case("t1"), case("old", "failed"), case("new", "failed"), case("err", "errored")))
    head = replace(HEAD, base=base(failing=("gone", "old", "t1"), passing=()))
    measurement = build_measurement(head, replace(GOOD, suite=suite))
    unit = measurement.report.unit
    assert unit is not None
    assert (unit.passed, unit.failed, unit.errored, unit.ok) == (1, 1, 1, False)
    assert unit.known_failing == ("old",)
    assert [failure.id for failure in unit.failures] == ["new", "err"]
    assert measurement.failing == ("err", "new", "old")


@pytest.mark.rule("PL-52", "RG-11")
def test_test_that_passed_on_the_base_and_did_not_run_is_an_error_by_its_function() -> None:
    names = ("t1", "t2", "t3[a]", "t3[b]", "t3[c]", "t4", "x[<obj at 0x1>]")
    first = build_measurement(HEAD, replace(GOOD, suite=JUnitSuite(tuple(map(case, names)))))
    assert first.passing == tuple(sorted(names))
    now = (case("t1"), case("t2", "skipped"), case("t3[a]"), case("x[<obj at 0x2>]"), case("t5"))
    unit = build_measurement(replace(HEAD, base=first), replace(GOOD, suite=JUnitSuite(now))).report.unit
    assert unit is not None
    assert (unit.ok, unit.passed, unit.errored) == (False, 4, 3)
    said = {failure.id: failure.message for failure in unit.failures}
    assert set(said) == {"t2", "t3", "t4"}
    assert said["t3"] == "2 of its cases passed before the change and did not run now"
    old = first.model_copy(update={"passing": None})
    unmeasured = build_measurement(replace(HEAD, base=old), replace(GOOD, suite=JUnitSuite(now))).report.unit
    assert unmeasured is not None
    assert unmeasured.ok is True


@pytest.mark.rule("RC-79", "RG-13")
@pytest.mark.parametrize("name", ["unit", "e2e"])
def test_program_that_failed_without_a_failed_test_is_no_evidence(name: str) -> None:
    out = replace(GOOD, summary=summary(record(name, status="failed", exit_code=1)))
    report = build_measurement(HEAD, out).report
    assert getattr(report, name) is None
    assert [s.name for s in report.stages if s.status == "error"] == [name]


@pytest.mark.rule("RC-65")
def test_findings_count_as_new_by_file_code_and_message_and_as_often_as_the_base_lacks_them() -> None:
    head = replace(HEAD, base=base(lint=(finding("F401"),), static=(finding("S602"),)))
    out = replace(GOOD, lint=(finding("F401"), finding("F401"), finding("I001")), static=(finding("S602"),))
    report = build_measurement(head, out).report
    assert report.lint is not None
    assert (report.lint.errors, report.lint.ok) == (2, False)
    assert report.static is not None
    assert (report.static.gate, report.static.new_critical) == ("OK", 0)


@pytest.mark.rule("RG-15", "RC-69")
def test_static_counts_by_severity_and_spares_tests_from_security_rules() -> None:
    found = (finding("S602"), finding("S324"), finding("B006"), finding("S602", "tests/test_a.py"))
    report = build_measurement(HEAD, replace(GOOD, static=found, secrets=2)).report
    assert report.static is not None
    assert (report.static.new_critical, report.static.new_major, report.static.new_minor) == (1, 1, 1)
    assert (report.static.gate, report.static.ok) == ("ERROR", False)
    assert report.security is not None
    assert (report.security.secrets_found, report.security.critical, report.security.high) == (2, 1, 1)


@pytest.mark.parametrize(
    ("code", "level"), [("F821", "critical"), ("S105", "minor"), ("B008", "minor"), ("PLE1", "major")]
)
def test_severity_of_a_code(code: str, level: str) -> None:
    assert severity(code) == level


@pytest.mark.rule("RC-79", "RC-69", "RG-10")
@pytest.mark.parametrize(
    ("lost", "sections", "stage"),
    [
        ("suite", ("unit", "coverage"), "unit"),
        ("coverage", ("coverage",), None),
        ("e2e", ("e2e",), "e2e"),
        ("lint", ("lint",), "static"),
        ("static", ("static",), "static"),
    ],
)
def test_lost_result_file_makes_its_section_absent_and_its_stage_an_error(
    lost: str, sections: tuple[str, ...], stage: str | None
) -> None:
    report = build_measurement(HEAD, replace(GOOD, **{lost: None})).report
    every = ("build", "unit", "coverage", "static", "lint", "e2e", "security")
    assert [name for name in every if getattr(report, name) is None] == list(sections)
    assert [s.name for s in report.stages if s.status == "error"] == ([stage] if stage else [])


@pytest.mark.rule("RC-75", "RC-79", "RC-103")
def test_pages_of_a_preview_count_as_end_to_end_tests_and_without_a_browser_there_is_no_evidence() -> None:
    def with_preview(tests: StageRecord, looks: StageRecord, **fields: object) -> Outputs:
        stages = (*summary(tests).stages, looks)
        pages = JUnitSuite((case("preview::/", "failed"), case("preview::/b")))
        found = {"preview": pages, "pictures": (TREE,), "blobs": {"preview": TREE}, **fields}
        return replace(GOOD, summary=GOOD.summary.model_copy(update={"stages": stages}), **found)  # type: ignore[union-attr]

    none = record("e2e", status="skipped", exit_code=5)
    red = record("preview", status="failed", exit_code=1, started_at_ms=2000, finished_at_ms=2500)
    both = build_measurement(HEAD, with_preview(record("e2e"), red))
    alone = build_measurement(HEAD, with_preview(none, red, e2e=JUnitSuite(())))
    assert both.failing_e2e == ("preview::/",)
    assert both.report.e2e is not None
    assert (both.report.e2e.ok, both.report.e2e.passed, both.report.e2e.failed) == (False, 2, 1)
    assert (both.report.e2e.preview, both.report.e2e.artifacts) == (TREE, (TREE,))
    assert both.report.timings.e2e_ms == 1500
    assert alone.report.e2e is not None
    assert (alone.report.e2e.passed, alone.report.e2e.failed) == (1, 1)
    assert [(s.status, s.exit_code) for s in alone.report.stages if s.name == "e2e"] == [("failed", 1)]
    again = build_measurement(replace(HEAD, base=both), with_preview(record("e2e"), red)).report
    assert again.e2e is not None
    assert (again.e2e.ok, again.e2e.known_failing) == (True, ("preview::/",))

    blind = record("preview", status="error", exit_code=69)
    for out in (with_preview(record("e2e"), blind), with_preview(record("e2e"), red, preview=None)):
        report = build_measurement(HEAD, out).report
        assert report.e2e is None
        assert [s.status for s in report.stages if s.name == "e2e"] == ["error"]


@pytest.mark.rule("RC-72", "RC-76")
def test_after_a_failed_build_sections_stay_missing_and_the_report_is_not_complete() -> None:
    skipped = [record(n, status="skipped", exit_code=None, started_at_ms=None, finished_at_ms=None) for n in NAMES[1:]]
    out = Outputs(summary=summary(record("build", status="failed", exit_code=1), *skipped))
    report = build_measurement(HEAD, out).report
    assert report.complete is False
    assert report.build is not None
    assert report.build.ok is False
    assert (report.unit, report.static, report.lint, report.e2e, report.coverage) == (None,) * 5
    assert [stage.status for stage in report.stages] == ["failed", "skipped", "skipped", "skipped"]


def test_run_without_a_summary_is_not_complete_and_proves_nothing() -> None:
    report = build_measurement(HEAD, replace(GOOD, summary=None)).report
    assert report.complete is False
    assert report.stages == ()
    assert (report.build, report.unit, report.static, report.lint, report.e2e) == (None,) * 5


@pytest.mark.rule("RG-11")
def test_suite_that_collected_nothing_is_no_evidence() -> None:
    out = replace(GOOD, summary=summary(record("e2e", status="skipped", exit_code=5)), e2e=JUnitSuite(()))
    report = build_measurement(HEAD, out).report
    assert report.e2e is None
    assert report.complete is True
    assert build_measurement(HEAD, replace(GOOD, suite=JUnitSuite(()))).report.unit is None


def test_unknown_stage_of_a_newer_shim_is_left_out() -> None:
    extra = CheckSummary(schema=1, stages=(*summary().stages, record("deploy")))  # type: ignore[call-arg]
    names = [stage.name for stage in build_measurement(HEAD, replace(GOOD, summary=extra)).report.stages]
    assert "deploy" not in names


def test_measurement_survives_its_encoding() -> None:
    out = replace(GOOD, lint=(finding("F401"),), suite=JUnitSuite((case("t", "failed"),)))
    measurement = build_measurement(HEAD, out)
    assert Measurement.decode(measurement.encode()) == measurement
    assert Measurement.decode(measurement.encode()).encode() == measurement.encode()


@pytest.mark.rule("RC-64", "RC-65", "RC-67", "RC-69")
def test_tools_of_another_language_are_named_and_give_no_security_rules() -> None:
    stages = summary(record("static", tool="clippy"), record("lint", tool="eslint"), record("unit", tool="cargo test"))
    said = stages.model_copy(update={"tools": {"clippy": "1.95.0"}, "coverage_tool": "go cover"})
    found = [
        CodeFinding(path="a.rs", code=code, message="m", severity=level)
        for code, level in (("E0308", "critical"), ("S100", "major"), ("clippy::x", "minor"))
    ]
    lint = (
        CodeFinding(path="a.js", code="semi", message="m"),
        CodeFinding(path="a.js", code="x", message="m", severity="minor"),
    )
    report = build_measurement(HEAD, replace(GOOD, summary=said, static=tuple(found), lint=lint)).report
    assert report.static is not None
    assert (report.static.gate, report.static.new_critical, report.static.new_major) == ("ERROR", 1, 1)
    assert [(tool.name, tool.version) for tool in report.static.tools] == [("clippy", "1.95.0")]
    assert report.lint is not None
    assert (report.lint.tool, report.lint.errors, report.lint.warnings) == ("eslint", 1, 1)
    assert report.security is not None
    assert (report.security.secrets_found, report.security.critical, report.security.high) == (0, None, None)
    assert [tool.name for tool in report.security.tools] == ["secrets"]
    assert report.coverage is not None
    assert report.coverage.tool == "go cover"


@pytest.mark.parametrize("path", ["sums_test.go", "test/a.js", "src/a.spec.ts", "tests/e2e.rs", "src/a.e2e.mjs"])
def test_coverage_leaves_out_the_tests_of_every_language(path: str) -> None:
    hits = LineHits({"src/main.go": {1: False}, path: {1: True}})
    report = build_measurement(HEAD, replace(GOOD, coverage=hits, changed={path: (1,), "src/main.go": (1,)})).report
    assert report.coverage is not None
    assert (report.coverage.new_lines, report.coverage.new_covered, report.coverage.total_pct) == (1, 0, Decimal(0))


def test_stages_that_a_language_lacks_are_skipped_and_their_sections_absent() -> None:
    skipped = {"status": "skipped", "exit_code": None, "started_at_ms": None, "finished_at_ms": None}
    stages = summary(record("static", **skipped), record("lint", **skipped))
    report = build_measurement(HEAD, replace(GOOD, summary=stages, static=None, lint=None, coverage=None)).report
    assert report.complete
    assert (report.static, report.lint, report.coverage) == (None, None, None)
    assert {s.name: s.status for s in report.stages}["static"] == "skipped"


@pytest.mark.rule("RG-11", "CN-30")
def test_nothing_measured_is_kept_only_where_nothing_was_before():
    sound, empty = build_measurement(HEAD, GOOD), build_measurement(HEAD, replace(GOOD, suite=JUnitSuite(())))
    lost = build_measurement(HEAD, replace(GOOD, suite=None))
    assert sound.keeps(None)
    assert sound.keeps(empty)
    assert empty.keeps(empty)
    assert not empty.keeps(sound)
    assert not lost.keeps(empty)
    assert not lost.keeps(None)
