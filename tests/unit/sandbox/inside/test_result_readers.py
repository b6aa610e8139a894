"""What the tools' own reporters say becomes JUnit, Cobertura and findings; what is cut or forged is no result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.workspace.service.results import parse_coverage, parse_findings, parse_junit
from tests.support.inside import load

result_files: Any = load("result_files")
go_tests: Any = load("go_tests")
node_tests: Any = load("node_tests")
cargo_tests: Any = load("cargo_tests")
find_problems: Any = load("find_problems")
Unreadable = result_files.Unreadable


def lines(*events: dict[str, Any]) -> str:
    return "\n".join(json.dumps(event) for event in events)


def outcomes(cases: list[Any]) -> list[tuple[str, str, str]]:
    return [(case.name, case.outcome, case.message) for case in cases]


def test_go_counts_leaves_crashes_and_packages_that_do_not_build() -> None:
    def event(action: str, test: str = "", package: str = "p", **more: str) -> dict[str, str]:
        return {"Action": action, "Package": package, **({"Test": test} if test else {}), **more}

    text = lines(
        event("run", "TestA"),
        event("output", "TestA", Output="=== RUN   TestA\n"),
        event("pass", "TestA/one"),
        event("output", "TestA/two", Output="    a_test.go:3: wrong\n"),
        event("fail", "TestA/two"),
        event("fail", "TestA"),
        event("skip", "TestB"),
        event("run", "TestCrash"),
        event("fail"),
        event("output", package="q", Output="panic: boom\n"),
        event("fail", package="q"),
        event("pass", package="empty"),
        event("pass", "TestE2EWhole", package="r"),
        event("pass", package="r"),
    )
    found = go_tests.cases_of(f"{text}\n# broken\nFAIL\tbroken [build failed]\nFAIL\n")
    assert outcomes(found) == [
        ("TestA/one", "passed", ""),
        ("TestA/two", "failed", "a_test.go:3: wrong"),
        ("TestB", "skipped", ""),
        ("TestCrash", "errored", ""),
        ("(package)", "errored", "panic: boom"),
        ("(package)", "errored", "it did not build"),
    ]
    assert "TestE2EWhole" in {case.name for case in go_tests.cases_of(text, kind="e2e")}


def test_go_parent_that_failed_by_itself_counts() -> None:
    text = lines(
        {"Action": "pass", "Package": "p", "Test": "TestA/one"}, {"Action": "fail", "Package": "p", "Test": "TestA"}
    )
    assert outcomes(go_tests.cases_of(text)) == [("TestA/one", "passed", ""), ("TestA", "failed", "")]


def test_go_profile_leaves_out_lines_without_code_and_other_modules(tmp_path: Path) -> None:
    (tmp_path / "a.go").write_text(
        "package a\nfunc F(x int) int {\n\tif x > 1 {\n\t\treturn 1\n\t}\n// c\n\treturn 2\n}\n"
    )
    profile = "mode: set\nm/a.go:2.19,3.11 1 1\nm/a.go:3.11,5.3 1 0\nm/a.go:7.2,7.10 1 1\nn/b.go:1.1,2.2 1 1\n"
    found = go_tests.lines_of(profile, module="m", root=tmp_path)
    assert found == {"a.go": {2: 1, 3: 1, 4: 0, 7: 1}}
    assert go_tests.lines_of("mode: set\nm/gone.go:1.1,2.2 1 1\n", module="m", root=tmp_path) == {"gone.go": {}}
    for bad in ("", "m/a.go:1.1,2.2 1 1", "mode: set\nnonsense"):
        with pytest.raises(Unreadable):
            go_tests.lines_of(bad, module="m", root=tmp_path)


def test_go_module_is_that_of_go_mod(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("// x\nmodule example.org/a // y\n\ngo 1.19\n")
    assert go_tests.module_of(tmp_path) == "example.org/a"
    (tmp_path / "go.mod").write_text("go 1.19\n")
    assert go_tests.module_of(tmp_path) == ""


def node_event(name: str, nesting: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "type": "passed",
        "name": name,
        "nesting": nesting,
        "file": "/w/a.test.js",
        "line": 1,
        "message": "",
        **more,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        lines(node_event("a")),
        lines(node_event("a"), {"type": "end", "results": 2}),
        lines(node_event("a"), {"type": "end", "results": True}),
        lines(node_event("a", type="splendid"), {"type": "end", "results": 1}),
        lines(node_event("a", nesting=-1), {"type": "end", "results": 1}),
        lines(node_event("a", file=1), {"type": "end", "results": 1}),
        "[1]\n" + lines({"type": "end", "results": 1}),
        "100 passed",
        "[" * 100_000,
    ],
)
def test_node_record_that_is_cut_or_odd_is_no_result(text: str) -> None:
    with pytest.raises(Unreadable):
        node_tests.cases_of(text, root=Path("/w"))


def test_node_file_names_come_in_both_forms_of_its_versions() -> None:
    for name in ("/w/a.test.js", "a.test.js"):
        events = (node_event(name), node_event(name, type="failed"), {"type": "end", "results": 2})
        assert outcomes(node_tests.cases_of(lines(*events), root=Path("/w"))) == [("(file)", "errored", "")]


def test_node_kinds_of_test_files(tmp_path: Path) -> None:
    names = (
        "a.test.js",
        "b.js",
        "test/c.mjs",
        "test/e2e/d.js",
        "e.e2e.test.cjs",
        "test-f.js",
        "node_modules/x.test.js",
    )
    for name in (*names, "integration/g.test.js"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {path.as_posix(): node_tests.kind_of(path) for path in node_tests.test_files(tmp_path)}
    assert found == {
        "a.test.js": "unit",
        "test/c.mjs": "unit",
        "test-f.js": "unit",
        "test/e2e/d.js": "e2e",
        "e.e2e.test.cjs": "e2e",
        "integration/g.test.js": "integration",
    }


def test_node_coverage_leaves_out_lines_without_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.js").write_text("f();\n\n// c\n}\ng();\n")
    lines_hit = "DA:1,1\nDA:2,1\nDA:3,1\nDA:4,0\nDA:5,0\nDA:99,1\n"
    text = f"TN:\nSF:a.js\n{lines_hit}end_of_record\nSF:gone.js\nDA:1,1\nend_of_record\n"
    assert node_tests.lines_of(text) == {"a.js": {1: 1, 5: 0}, "gone.js": {}}
    for bad in ("SF:a.js\nDA:1,1\n", "DA:1,1\n", "SF:a.js\nDA:x\nend_of_record\n"):
        with pytest.raises(Unreadable):
            node_tests.lines_of(bad)


def libtest(*events: dict[str, Any], count: int = 2, **ending: Any) -> str:
    end = {"type": "suite", "event": "failed", "passed": 1, "failed": 1, "ignored": 0, **ending}
    return lines({"type": "suite", "event": "started", "test_count": count}, *events, end)


GOOD = {"type": "test", "event": "ok", "name": "a"}
BAD = {"type": "test", "event": "failed", "name": "b", "stdout": "x\nthread 'b' panicked at src/lib.rs:1:\nboom\n"}


def test_libtest_gives_its_tests_past_what_the_code_prints() -> None:
    text = libtest({"type": "test", "event": "started", "name": "a"}, GOOD, BAD).replace("\n", "\nnoise\n")
    assert outcomes(cargo_tests.cases_of(text, "lib")) == [("a", "passed", ""), ("b", "failed", "boom")]


@pytest.mark.parametrize(
    "text",
    [
        "test result: ok. 100 passed",
        libtest(GOOD),
        libtest(GOOD, BAD, passed=100),
        libtest(GOOD, BAD, count=3),
        libtest(GOOD, BAD, failed="1"),
        libtest(GOOD, BAD).rsplit("\n", 1)[0],
        libtest(GOOD, {**BAD, "name": 7}),
        "{" * 100_000,
    ],
)
def test_libtest_record_with_lying_counts_is_no_result(text: str) -> None:
    with pytest.raises(Unreadable):
        cargo_tests.cases_of(text, "lib")


def test_cargo_names_test_programs_by_their_targets() -> None:
    def artifact(name: str, **more: Any) -> dict[str, Any]:
        whole = {"executable": f"/t/{name}", "manifest_path": "/w/Cargo.toml", "profile": {"test": True}}
        return {"reason": "compiler-artifact", "target": {"name": name}, **whole, **more}

    built = {"reason": "build-finished", "success": True}
    text = lines(
        artifact("sums"), artifact("e2e_web"), artifact("integ"), artifact("bin", profile={"test": False}), built
    )
    assert [(p.target, p.kind, p.folder) for p in cargo_tests.programs_of(text)] == [
        ("sums", "unit", "/w"),
        ("e2e_web", "e2e", "/w"),
        ("integ", "integration", "/w"),
    ]
    with pytest.raises(Unreadable):
        cargo_tests.programs_of(lines(artifact("sums"), {**built, "success": False}))


def test_formatters_name_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.go").touch()
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor/b.go").touch()
    text = f"a.go\n{tmp_path}/a.go\nvendor/b.go\n"
    found = find_problems.read_names(text, tmp_path, "gofmt")
    assert {(f["filename"], f["code"]) for f in found} == {("a.go", "gofmt")}
    with pytest.raises(Unreadable):
        find_problems.read_names("error: it broke\n", tmp_path, "gofmt")


def test_vet_and_clippy_and_eslint_take_only_their_form() -> None:
    root = Path("/w")
    one = {"p": {"printf": [{"posn": "/w/a.go:3:2", "message": "odd"}]}}
    text = f"# p\n{json.dumps(one)}\n# q\n{{}}\n"
    assert [(f["filename"], f["code"]) for f in find_problems.read_vet(text, root)] == [("a.go", "vet/printf")]
    span = {"is_primary": True, "file_name": "src/a.rs"}
    said = {"level": "warning", "code": {"code": "clippy::x"}, "message": "m", "spans": [span]}
    end = {"reason": "build-finished", "success": True}
    messages = [{"reason": "compiler-message", "message": m} for m in (said, {**said, "code": None})]
    errors = [
        {"reason": "compiler-message", "message": {**said, "level": "error", "code": {"code": code}}}
        for code in ("clippy::y", "E0308")
    ]
    found = find_problems.read_clippy(lines(*messages, *errors, end), root)
    assert [(f["code"], f["severity"]) for f in found] == [
        ("clippy::x", "minor"),
        ("clippy::y", "major"),
        ("E0308", "critical"),
    ]
    warning = {"ruleId": None, "message": "m", "severity": 1}
    (lint,) = find_problems.read_eslint(json.dumps([{"filePath": "/w/a.js", "messages": [warning]}]), root)
    assert (lint["filename"], lint["code"], lint["severity"]) == ("a.js", "syntax", "minor")


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        ("read_vet", "vet: it broke"),
        ("read_vet", '{"p": {"printf": {"error": "x"}}}'),
        ("read_vet", "[" * 100_000),
        ("read_clippy", "error: it broke"),
        ("read_clippy", '{"reason": "compiler-artifact"}'),
        ("read_clippy", '{"reason": "compiler-message", "message": {}}\n{"reason": "build-finished"}'),
        ("read_eslint", '[{"filePath": "a.js"}]'),
        ("read_eslint", "Oops"),
        ("read_eslint", "[" * 100_000),
    ],
)
def test_reader_of_another_form_gives_no_result(reader: str, text: str) -> None:
    with pytest.raises(Unreadable):
        getattr(find_problems, reader)(text, Path("/w"))


TEXT = st.text(max_size=40)


@pytest.mark.rule("RC-47")
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(TEXT, st.sampled_from(["passed", "failed", "errored", "skipped"]), TEXT, st.integers(1, 9999))),
    st.dictionaries(TEXT.filter(str.isalnum), st.dictionaries(st.integers(1, 99), st.integers(0, 3), min_size=1)),
)
def test_whatever_a_tool_says_is_written_so_that_the_report_reads_it(
    tmp_path_factory: pytest.TempPathFactory, said: list[tuple[str, str, str, int]], hits: dict[str, dict[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("results")
    cases = [result_files.Case(name, outcome, "", message, "a/b.go", line) for name, outcome, message, line in said]
    result_files.write_junit(folder / "junit.xml", cases)
    suite = parse_junit((folder / "junit.xml").read_bytes())
    assert suite is not None
    assert [(c.outcome, c.file, c.line) for c in suite.cases] == [(o, "a/b.go", n) for _, o, _, n in said]
    result_files.write_cobertura(folder / "coverage.xml", hits)
    covered = parse_coverage((folder / "coverage.xml").read_bytes())
    assert covered is not None
    assert covered.files == {path: {n: count > 0 for n, count in found.items()} for path, found in hits.items()}
    findings = [{"filename": name, "code": "x", "message": message} for name, _, message, _ in said]
    result_files.write_findings(folder / "lint.json", findings)
    read = parse_findings((folder / "lint.json").read_bytes())
    assert read is not None
    assert len(read) == len(findings)


def test_junit_is_plain_xml(tmp_path: Path) -> None:
    result_files.write_junit(tmp_path / "j.xml", [result_files.Case("a\0\ud800<&>", "failed", message="\x1b[31m")])
    (case,) = ElementTree.parse(tmp_path / "j.xml").iter("testcase")
    assert case.attrib == {"name": "a??<&>"}
