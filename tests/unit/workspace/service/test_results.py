"""Result files are read by hardened parsers: what does not fit is no evidence."""

from __future__ import annotations

import json
from xml.etree.ElementTree import Element, tostring

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.workspace.service.results import (
    MAX_BYTES,
    MAX_ELEMENTS,
    parse_coverage,
    parse_edits,
    parse_findings,
    parse_junit,
    parse_summary,
    parse_tests,
)

JUNIT = b"""<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.test_a" name="test_ok" file="tests/test_a.py" line="3" time="0.1"/>
<testcase classname="tests.test_a.TestB.TestC" name="test_in" file="tests/test_a.py" line="x"/>
<testcase classname="tests.test_a" name="test_bad" file="tests/test_a.py" line="9">
  <failure message="AssertionError: assert 1 == 2&#10;more">text</failure><error message="torn"/></testcase>
<testcase classname="tests.test_a" name="test_skip" file="tests/test_a.py"><skipped message="later"/></testcase>
<testcase classname="" name="tests.test_gone"><error message="collection failure">no module</error></testcase>
<testcase classname="" name=""/>
<testcase classname="go/pkg" name="TestX"><failure/></testcase>
</testsuite></testsuites>"""

BOMB = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]><testsuites>&b;</testsuites>'
EXTERNAL = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><testsuites>&a;</testsuites>'


@pytest.mark.rule("RC-62", "RC-79")
def test_junit_gives_every_test_its_id_and_worst_outcome() -> None:
    suite = parse_junit(JUNIT)
    assert suite is not None
    assert [(c.id, c.outcome) for c in suite.cases] == [
        ("tests/test_a.py::test_ok", "passed"),
        ("tests/test_a.py::TestB::TestC::test_in", "passed"),
        ("tests/test_a.py::test_bad", "errored"),
        ("tests/test_a.py::test_skip", "skipped"),
        ("tests.test_gone", "errored"),
        ("unnamed", "passed"),
        ("go/pkg::TestX", "failed"),
    ]
    assert (suite.cases[0].line, suite.cases[1].line) == (4, None)
    assert suite.failing == ("go/pkg::TestX", "tests.test_gone", "tests/test_a.py::test_bad")


@pytest.mark.check("S25")
@pytest.mark.parametrize(
    "data",
    [None, b"", b"<testsuites>", b"<html/>", BOMB, EXTERNAL, b"100 passed", b'<?xml version="1.0" encoding="x"?><a/>'],
)
def test_junit_that_is_hostile_or_no_junit_is_no_evidence(data: bytes | None) -> None:
    assert parse_junit(data) is None
    assert parse_coverage(data) is None


@pytest.mark.check("S25")
@pytest.mark.rule("RC-79")
def test_oversized_files_are_no_evidence() -> None:
    data = b" " * (MAX_BYTES + 1)
    parsers = (parse_junit, parse_coverage, parse_findings, parse_summary, parse_tests, parse_edits)
    assert [parse(data) for parse in parsers] == [None] * 6


@pytest.mark.check("S25")
def test_deep_json_is_no_evidence() -> None:
    deep = b"[" * 100_000
    assert [parse(deep) for parse in (parse_findings, parse_summary, parse_tests, parse_edits)] == [None] * 4


def test_coverage_gives_lines_by_file_and_leaves_out_nonsense() -> None:
    lines = '<line number="1" hits="1"/><line number="2" hits="0"/><line number="x" hits="1"/><line hits="1"/>'
    text = f'<coverage><packages><class filename="src/a.py"><lines>{lines}</lines></class></packages></coverage>'
    found = parse_coverage(text.encode())
    assert found is not None
    assert found.files == {"src/a.py": {1: True, 2: False}}


def test_findings_have_paths_of_the_repository_and_no_lines() -> None:
    data = [
        {"filename": "/workspace/a.py", "code": "F401", "message": "unused", "location": {"row": 1}},
        {"filename": "./b.py", "code": None, "message": "SyntaxError"},
    ]
    found = parse_findings(json.dumps(data).encode())
    assert found is not None
    assert [(f.path, f.code) for f in found] == [("a.py", "F401"), ("b.py", "E999")]
    assert parse_findings(b'{"a": 1}') is None


def test_summary_and_tests_outside_of_their_form_are_no_evidence() -> None:
    stage = {"name": "unit", "status": "passed", "exit_code": 0, "missing": []}
    good = parse_summary(json.dumps({"schema": 1, "stages": [stage]}).encode())
    assert good is not None
    assert good.stage("unit") is not None
    assert good.stage("e2e") is None
    assert parse_summary(json.dumps({"schema": 1, "stages": [stage | {"status": "splendid"}]}).encode()) is None
    assert parse_summary(json.dumps({"schema": 2, "stages": []}).encode()) is None
    outcome = {"id": "test_a", "outcome": "fine"}
    assert parse_tests(json.dumps({"files": [{"name": "a", "collected": True, "tests": [outcome]}]}).encode()) is None


# Whatever a run leaves: the parsers answer with a value or None, never with another exception (S25).

PARSERS = (parse_junit, parse_coverage, parse_findings, parse_summary, parse_tests, parse_edits)
KEYS = st.sampled_from(
    ["schema", "stages", "name", "status", "exit_code", "tools", "files", "tests", "id", "outcome", "filename", "code"]
    + ["message", "severity", "filePath", "messages", "ruleId", "applied", "normal_digest", "diff_lines", "tool"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)
NAMES = st.sampled_from(["testsuites", "testsuite", "testcase", "failure", "skipped", "coverage", "class", "line", "x"])
VALUES = st.sampled_from(["0", "1", "-1", "9" * 30, "x", "", "a/b.py", "٣"])
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["name", "classname", "file", "line", "number", "hits", "filename", "message", "tests"]), VALUES
)


@st.composite
def elements(draw: st.DrawFn, depth: int = 0) -> Element:
    element = Element(draw(NAMES), draw(ATTRIBUTES))
    if depth < 4:
        element.extend(draw(st.lists(elements(depth + 1), max_size=3)))
    return element


@pytest.mark.check("S25")
@pytest.mark.rule("RC-79")
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()) | elements().map(tostring))
def test_parsers_answer_whatever_they_are_given(data: bytes) -> None:
    for parse in PARSERS:
        parse(data)
    suite, covered = parse_junit(data), parse_coverage(data)
    assert suite is None or all(c.id and (c.line is None or 0 < c.line < 1 << 30) for c in suite.cases)
    assert covered is None or all(0 <= n < 1 << 30 for lines in covered.files.values() for n in lines)


@pytest.mark.rule("RC-79")
@pytest.mark.parametrize(
    "data",
    [
        b"<testsuites>" + b"<testsuite>" * 100_000 + b"</testsuite>" * 100_000 + b"</testsuites>",
        b"<testsuites>" + b"<a></a>" * (MAX_ELEMENTS + 1) + b"</testsuites>",
        b"<!DOCTYPE testsuites><testsuites/>",
        b'<?xml version="1.0" encoding="utf-16"?><testsuites/>',
        b"<testsuites>\xff</testsuites>",
        b"<testsuites a='1' a='2'/>",
        b"<testsuites/><testsuites/>",
    ],
    ids=["deep", "many", "dtd", "encoding", "not utf-8", "twice", "two roots"],
)
def test_xml_beyond_its_bounds_is_no_evidence(data: bytes) -> None:
    assert parse_junit(data) is None
    assert parse_coverage(data.replace(b"testsuites", b"coverage")) is None


@pytest.mark.rule("RC-79")
def test_counts_of_a_junit_file_are_counted_not_believed() -> None:
    lying = b'<testsuites tests="100" failures="0"><testsuite tests="100" failures="0"><testcase name="a"><failure/>'
    suite = parse_junit(lying + b"</testcase></testsuite></testsuites>")
    assert suite is not None
    assert [c.outcome for c in suite.cases] == ["failed"]


@pytest.mark.parametrize("field", ["started_at_ms", "finished_at_ms", "exit_code"])
def test_summary_with_numbers_beyond_their_bounds_is_no_evidence(field: str) -> None:
    for number in (1 << 60, -(1 << 60)):
        stage = {"name": "unit", "status": "passed", field: number}
        assert parse_summary(json.dumps({"schema": 1, "stages": [stage]}).encode()) is None


@pytest.mark.rule("RC-64", "RC-65")
def test_findings_of_eslint_and_with_a_severity_are_read_too() -> None:
    message = {"ruleId": "semi", "message": "Missing", "severity": 2, "line": 3}
    parse_error = {"ruleId": None, "message": "Parsing error", "severity": 1, "fatal": True}
    found = parse_findings(json.dumps([{"filePath": "/workspace/a.js", "messages": [message, parse_error]}]).encode())
    assert found is not None
    assert [(f.path, f.code, f.severity) for f in found] == [("a.js", "semi", None), ("a.js", "syntax", "minor")]
    ours = [{"filename": "a.rs", "code": "x", "message": "m", "severity": s} for s in ("major", "error", 7)]
    found = parse_findings(json.dumps(ours).encode())
    assert found is not None
    assert [f.severity for f in found] == ["major", None, None]
    assert parse_findings(json.dumps([{"filePath": "a.js", "messages": [{**message, "severity": 9}]}]).encode()) is None
