"""The shim on Go, Node and Rust: what passes, what fails, and what is no evidence. Their programs must be installed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.inside import read_json, run_script, write_files
from tests.support.language_repos import REPOS, Language, path_for

pytestmark = pytest.mark.wide

LANGUAGES: list[Language] = ["go", "node", "rust"]
BROKEN: dict[Language, dict[str, str]] = {
    "go": {"sums.go": "package sums\n\nfunc Add(a, b int) int {\n"},
    "node": {"sums.js": "exports.add = (a, b => {\n"},
    "rust": {"src/lib.rs": "pub fn add(a: i32 {\n"},
}
TEST_FILE: dict[Language, str] = {"go": "sums_test.go", "node": "test/sums.test.js", "rust": "src/lib.rs"}


def shim(root: Path, lang: Language, task: str, **env: str) -> subprocess.CompletedProcess[str]:
    own = {"TASK": task, "TASK_LANG": lang, "WORKDIR": str(root), "PATH": path_for(lang), **env}
    # The standard library is compiled once for all tests: the sandbox has no such folder.
    cache = {"GOCACHE": os.environ["GOCACHE"]} if "GOCACHE" in os.environ else {}
    return run_script("agent_task", cwd=root, env=cache | own)


def stages(root: Path) -> dict[str, tuple[str, int | None]]:
    return {s["name"]: (s["status"], s["exit_code"]) for s in read_json(root / "out/summary.json")["stages"]}


def cases(root: Path, name: str = "junit.xml") -> list[tuple[str, str]]:
    found = ElementTree.parse(root / "test-reports" / name).iter("testcase")
    return [(case.attrib["name"], next((child.tag for child in case), "passed")) for case in found]


@pytest.fixture(params=LANGUAGES)
def lang(request: pytest.FixtureRequest) -> Language:
    path_for(request.param)
    return request.param


@pytest.mark.rule("RC-72")
def test_broken_source_fails_the_build_and_skips_the_rest(tmp_path: Path, lang: Language) -> None:
    write_files(tmp_path, {**REPOS[lang], **BROKEN[lang]})
    done = shim(tmp_path, lang, "pipeline")
    assert done.returncode not in (0, 5), done.stderr
    found = stages(tmp_path)
    assert found.pop("build") == ("failed", done.returncode)
    assert set(found.values()) == {("skipped", None)}


@pytest.mark.rule("RC-48")
def test_unit_without_tests_exits_5_with_total_0(tmp_path: Path, lang: Language) -> None:
    write_files(tmp_path, REPOS[lang])
    write_files(tmp_path, {TEST_FILE[lang]: {"go": "package sums\n", "node": "1;\n", "rust": "// nothing\n"}[lang]})
    if lang == "rust":
        (tmp_path / "tests/e2e.rs").unlink()  # it would not build without the function it calls
    done = shim(tmp_path, lang, "unit")
    assert done.returncode == 5, done.stderr
    assert read_json(tmp_path / "out/summary.json")["total"] == 0
    assert cases(tmp_path) == []


@pytest.mark.rule("RC-44", "RC-79")
def test_override_that_writes_no_file_is_an_error_beside_a_stale_one(tmp_path: Path, lang: Language) -> None:
    write_files(tmp_path, {**REPOS[lang], "test-reports/junit.xml": "<testsuites/>", "coverage/coverage.xml": "x"})
    done = shim(tmp_path, lang, "unit", **{f"{lang.upper()}_TEST_CMD": "echo 100 passed"})
    assert done.returncode == 1
    assert stages(tmp_path)["unit"] == ("error", 0)
    assert not (tmp_path / "test-reports/junit.xml").exists()
    assert not (tmp_path / "coverage/coverage.xml").exists()
    assert read_json(tmp_path / "out/summary.json")["stages"][0]["tool"] == f"{lang.upper()}_TEST_CMD"


@pytest.mark.parametrize("task", ["build", "unit"])
def test_wrong_language_for_the_project_is_no_pass(tmp_path: Path, lang: Language, task: str) -> None:
    write_files(tmp_path, REPOS["node" if lang != "node" else "go"])
    done = shim(tmp_path, lang, task)
    # Node has nothing to build there, and no test: neither is evidence.
    assert done.returncode == {"build": 0, "unit": 5}[task] if lang == "node" else done.returncode != 0


def test_broken_test_is_an_error_and_the_others_count(tmp_path: Path) -> None:
    path_for("node")
    write_files(tmp_path, REPOS["node"])
    write_files(tmp_path, {"test/broken.test.js": "syntax error here(\n", "test/empty.test.js": ""})
    assert shim(tmp_path, "node", "unit").returncode == 1
    assert sorted(cases(tmp_path)) == [("(file)", "error"), ("adds", "passed")]


@pytest.mark.rule("RC-80")
def test_node_file_that_ends_its_process_is_named_beside_a_broken_one(tmp_path: Path) -> None:
    path_for("node")
    write_files(tmp_path, REPOS["node"])
    write_files(tmp_path, {"test/broken.test.js": "syntax error here(\n", "test/ended.test.js": "process.exit(0);\n"})
    assert shim(tmp_path, "node", "unit").returncode == 1
    assert sorted(cases(tmp_path)) == [("(file)", "error"), ("(report)", "error"), ("adds", "passed")]
    reports = ElementTree.parse(tmp_path / "test-reports/junit.xml").iter("testcase")
    assert [case.attrib["file"] for case in reports if case.attrib["name"] == "(report)"] == ["test/ended.test.js"]


def test_node_suites_give_their_tests_with_whole_names(tmp_path: Path) -> None:
    path_for("node")
    text = """const { describe, it, test } = require('node:test');
describe('group', () => {
  it('good', () => {});
  it('bad', () => { throw new Error('boom\\nmore'); });
  it.skip('later', () => {});
});
test('outer', async (t) => { await t.test('inner', () => {}); });
test('own', async (t) => { await t.test('inner', () => {}); throw new Error('after'); });
"""
    write_files(tmp_path, {"package.json": "{}", "a.test.js": text})
    assert shim(tmp_path, "node", "unit").returncode == 1
    assert cases(tmp_path) == [
        ("group > good", "passed"),
        ("group > bad", "failure"),
        ("group > later", "skipped"),
        ("outer > inner", "passed"),
        ("own > inner", "passed"),
        ("own", "failure"),
    ]
    failure = next(ElementTree.parse(tmp_path / "test-reports/junit.xml").iter("failure"))
    assert failure.attrib["message"] == "boom"


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("true", 0)])
def test_node_builds_with_its_own_script(tmp_path: Path, script: str, code: int) -> None:
    path_for("node")
    write_files(tmp_path, {"package.json": f'{{"name": "x", "scripts": {{"build": "{script}"}}}}', "bad.js": "(("})
    assert shim(tmp_path, "node", "build").returncode == code


@pytest.mark.rule("RC-65")
def test_node_lints_with_the_eslint_that_the_project_brings(tmp_path: Path) -> None:
    path_for("node")
    said = '[{"filePath": "%s/sums.js", "messages": [{"ruleId": "semi", "message": "Missing", "severity": 2}]}]'
    program = f"#!/bin/sh\necho '{said % tmp_path}'\nexit 1\n"
    write_files(tmp_path, {**REPOS["node"], "node_modules/.bin/eslint": program})
    (tmp_path / "node_modules/.bin/eslint").chmod(0o755)
    assert shim(tmp_path, "node", "lint").returncode == 1
    assert read_json(tmp_path / "out/lint.json") == [{"filename": "sums.js", "code": "semi", "message": "Missing"}]
    assert shim(tmp_path, "node", "pipeline").returncode == 0
    assert stages(tmp_path)["lint"] == ("passed", 0)
    assert stages(tmp_path)["static"] == ("skipped", None)


def test_single_static_with_findings_exits_with_1(tmp_path: Path) -> None:
    path_for("go")
    text = 'package sums\n\nimport "fmt"\n\nfunc Say() { fmt.Printf("%d", "x") }\n'
    write_files(tmp_path, {**REPOS["go"], "say.go": text})
    assert shim(tmp_path, "go", "static").returncode == 1
    assert [f["code"] for f in read_json(tmp_path / "out/static.json")] == ["vet/printf"]


@pytest.mark.parametrize(
    ("task", "lang"),
    [*((task, lang) for task in ("build", "unit") for lang in LANGUAGES), ("lint", "go"), ("static", "rust")],
)
def test_program_that_is_missing_is_named_and_leaves_no_result(tmp_path: Path, task: str, lang: Language) -> None:
    write_files(tmp_path, REPOS[lang])
    env = {"TASK": task, "TASK_LANG": lang, "WORKDIR": str(tmp_path), "PATH": "/nowhere"}
    done = run_script("agent_task", cwd=tmp_path, env=env)
    assert done.returncode == 127
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [p for p in ("out/lint.json", "out/static.json", "test-reports/junit.xml") if (tmp_path / p).exists()]


def test_results_replace_whatever_lies_in_their_place(tmp_path: Path) -> None:
    path_for("node")
    write_files(tmp_path, {**REPOS["node"], "test-reports/junit.xml/x": "", "coverage": "a file"})
    (tmp_path / "out").symlink_to("/nowhere")
    done = shim(tmp_path, "node", "unit")
    assert done.returncode == 0, done.stderr
    assert cases(tmp_path) == [("adds", "passed")]
