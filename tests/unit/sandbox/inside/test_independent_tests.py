"""Test files of Node, Go and Rust beside tests that must fail: what ends red, whatever the code under test does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import load, read_json, write_files
from tests.support.language_repos import REPOS, Language, path_for

independent_tests: Any = load("independent_tests")

pytestmark = pytest.mark.rule("CN-32", "CN-33")

NAMES = {"node": ["ac-1 doubles"], "go": ["Test_ac_1_doubles"], "rust": ["ac_1_doubles"]}


def given(lang: Language, product: str, **instead: Any) -> dict[str, Any]:
    """A test file that asks the product of this name to double 4."""
    code = {
        "node": "import { test } from 'node:test';\nimport assert from 'node:assert';\n"
        f"import * as sums from '../{product}.js';\n\ntest('ac-1 doubles', () => {{\n"
        "  assert.strictEqual(sums.double(4), 8);\n});\n",
        "go": f'package {product}_test\n\nimport (\n\t"testing"\n\n\t"example.org/sums/{product}"\n)\n\n'
        f"func Test_ac_1_doubles(t *testing.T) {{\n\tif {product}.Double(4) != 8 {{\n"
        '\t\tt.Fatal("not 8")\n\t}\n}\n',
        "rust": f"use sums::{product}::*;\n\n#[test]\nfn ac_1_doubles() {{\n    assert_eq!(double(4), 8);\n}}\n",
    }
    path = {"node": f"test/{product}.test.mjs", "go": f"{product}/double_test.go", "rust": "tests/double.rs"}
    return {"name": product, "path": path[lang], "code": code[lang], "tests": NAMES[lang], **instead}


def run(root: Path, lang: Language, files: list[dict[str, Any]], *argv: str) -> dict[str, list[tuple[str, str]]]:
    """File -> outcome and message of each of its tests."""
    inputs = write_files(root.parent / "inputs", {"tests.json": json.dumps({"language": lang, "files": files})})
    assert independent_tests.main(["--workspace", str(root), "--inputs", str(inputs), *argv]) == 0
    told = read_json(root / "out/tests.json")["files"]
    return {file["name"]: [(test["outcome"], test["message"]) for test in file["tests"]] for file in told}


def workspace(tmp_path: Path, lang: Language, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", path_for(lang))
    return write_files(tmp_path / "workspace", {**REPOS[lang], **files})


NODE = {
    "right.js": "exports.double = (a) => 2 * a;\n",
    "wrong.js": "exports.double = (a) => a;\n",
    "early.js": "exports.double = () => process.exit(0);\n",
    "quiet.js": "const assert = require('node:assert');\nfor (const name of Object.keys(assert)) {\n"
    "  if (name !== 'AssertionError' && typeof assert[name] === 'function') assert[name] = () => {};\n}\n"
    "exports.double = (a) => a;\n",
    "picky.js": "const assert = require('node:assert');\nconst real = assert.strictEqual;\n"
    "assert.strictEqual = (a, b, said) => said && real(a, b, said);\n"
    "require('node:module').syncBuiltinESMExports();\nexports.double = (a) => a;\n",
    "runner.js": "const runner = require('node:test');\nconst real = runner.test;\n"
    "runner.test = (name, run) => real(name, name.startsWith('ac') ? () => {} : run);\n"
    "require('node:module').syncBuiltinESMExports();\n"
    "exports.double = (a) => a;\n",
    "status.js": "if (process.env.NODE_TEST_CONTEXT) process.on('exit', () => { process.exitCode = 0; });\n"
    "exports.double = (a) => a;\n",
    "report.js": "const fs = require('node:fs');\n"
    "const argv = fs.readFileSync(`/proc/${process.ppid}/cmdline`, 'utf8').split('\\0');\n"
    "const to = argv.filter((a) => a.startsWith('--test-reporter-destination=')).map((a) => a.slice(28));\n"
    "const one = { type: 'passed', name: 'ac-1 doubles', nesting: 0, file: '', line: 1, suite: false };\n"
    "const text = `${JSON.stringify(one)}\\n${JSON.stringify({ type: 'end', results: 1 })}\\n`;\n"
    "for (const path of to) fs.writeFileSync(path, text);\nprocess.stdout.write(text);\n"
    "process.kill(process.ppid, 'SIGKILL');\nexports.double = () => process.exit(0);\n",
    "left.js": "const { spawn } = require('node:child_process');\nconst forge = \"while :; do "
    'mkdir -p out; echo \'{\\"schema\\": 1, \\"files\\": []}\' > out/tests.json; sleep 0.01; done";\n'
    "spawn('sh', ['-c', forge, 'left-behind'], { detached: true, stdio: 'ignore' }).unref();\n"
    "exports.double = (a) => a;\n",
    "file.js": "const fs = require('node:fs');\nfs.writeFileSync(process.argv[1], 'changed');\n"
    "exports.double = (a) => 2 * a;\n",
}


def test_node_ends_red_whatever_wrong_code_does_to_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace(tmp_path, "node", NODE, monkeypatch)
    told = run(root, "node", [given("node", name.removesuffix(".js")) for name in NODE])
    assert told.pop("right") == [("passed", "")]
    assert told.pop("wrong")[0][0] == "failed"
    assert {name: ends[0][0] for name, ends in told.items() if ends[0][0] == "passed"} == {}
    # Nothing can be put in the place of how a test asserts, not even for tests of known names alone.
    assert [told[name][0][0] for name in ("quiet", "picky", "runner")] == ["failed"] * 3
    assert told["file"] == [("not_collected", "the run changed the file of its tests")]
    running = [(path / "cmdline").read_bytes() for path in Path("/proc").iterdir() if (path / "cmdline").is_file()]
    assert not [line for line in running if b"left-behind" in line]
    # Nothing of the runs stays in the workspace.
    assert {path.name for path in (root / "test").iterdir()} == {"sums.test.js", "whole.e2e.js"}


def test_node_file_that_cannot_run_says_why_and_what_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = {"hang.js": "exports.double = () => { for (;;); };\n", "sums": "a file\n"}
    root = workspace(tmp_path, "node", {**hang, "right.js": NODE["right.js"]}, monkeypatch)
    (root / "link").symlink_to(tmp_path)
    files = [
        given("node", "hang"),
        given("node", "gone"),
        given("node", "right", name="file", path="sums/double.test.mjs"),
        given("node", "right", name="link", path="link/double.test.mjs"),
    ]
    told = run(root, "node", files, "--limit", "3")
    assert {name: ends[0][0] for name, ends in told.items()} == dict.fromkeys(told, "not_collected")
    assert told["hang"][0][1] == "the file took longer than 3 seconds"
    assert "cannot be run" in told["gone"][0][1]
    assert "no folder of the workspace" in told["file"][0][1]
    assert "no folder of the workspace" in told["link"][0][1]
    assert not list(tmp_path.glob("*.test.*"))


def test_node_file_of_common_js_has_each_end_of_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace(tmp_path, "node", {}, monkeypatch)
    code = (
        "const { test } = require('node:test');\nconst assert = require('node:assert');\n"
        "test('good', () => {});\ntest('bad', () => assert.ok(false, 'it is bad'));\n"
        "test('skipped', { skip: true }, () => {});\n"
    )
    names = ["good", "bad", "skipped", "never written"]
    told = run(root, "node", [{"name": "one", "path": "test/new/one.test.cjs", "code": code, "tests": names}])
    assert [outcome for outcome, _ in told["one"]] == ["passed", "failed", "skipped", "not_collected"]
    assert told["one"][1][1] == "it is bad"


@pytest.mark.parametrize(("lang", "program"), [("node", "node"), ("go", "go"), ("rust", "cargo")])
def test_program_that_is_not_there_is_named_and_other_tests_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lang: Language, program: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    root = write_files(tmp_path / "workspace", {**REPOS[lang], "right/own_test.go": "package right\n"})
    before = {path for path in root.rglob("*") if path.is_file()}
    assert run(root, lang, [given(lang, "right")]) == {
        "right": [("not_collected", f"{program}: No such file or directory")]
    }
    assert {path for path in root.rglob("*") if path.is_file()} == before | {root / "out/tests.json"}


@pytest.mark.parametrize("text", ["", "[]", '{"language": "node"}', '{"language": "cobol", "files": []}'])
def test_request_that_is_none_is_bad_input(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(tmp_path, {"tests.json": text})
    assert independent_tests.main(["--workspace", str(tmp_path), "--inputs", str(tmp_path)]) == 2
    assert "tests.json of the inputs is no request" in capsys.readouterr().err


GO = {
    "right": "func Double(a int) int { return 2 * a }\n",
    "wrong": "func Double(a int) int { return a }\n",
    "report": 'import (\n\t"fmt"\n\t"syscall"\n)\n\nfunc Double(a int) int {\n'
    '\tfmt.Print("--- PASS: Test_ac_1_doubles (0.00s)\\nPASS\\n")\n\tsyscall.Exit(0)\n\treturn a\n}\n',
    "status": 'import (\n\t"os"\n\t"strings"\n)\n\nfunc init() {\n\tif strings.HasSuffix(os.Args[0], ".test") {\n'
    '\t\tos.Args = append(os.Args, "-test.run=^$")\n\t}\n}\n\nfunc Double(a int) int { return a }\n',
}


@pytest.mark.wide
def test_go_ends_red_whatever_wrong_code_does_to_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{name}/sums.go": f"package {name}\n\n{text}" for name, text in GO.items()}
    # A `TestMain` beside the file has no say.
    files["wrong/main_test.go"] = 'package wrong\n\nimport (\n\t"os"\n\t"testing"\n)\n\n'
    files["wrong/main_test.go"] += "func TestMain(m *testing.M) { os.Exit(0) }\n"
    root = workspace(tmp_path, "go", files, monkeypatch)
    told = run(root, "go", [*(given("go", name) for name in GO), given("go", "gone")])
    assert told.pop("right") == [("passed", "")]
    outcome, message = told["wrong"][0]
    assert (outcome, message.partition(": ")[2]) == ("failed", "not 8")
    assert {name: ends[0][0] for name, ends in told.items() if ends[0][0] == "passed"} == {}
    assert "must fail did not" in told["report"][0][1]
    assert "cannot be tested" in told["gone"][0][1]
    assert (root / "wrong/main_test.go").is_file()


RUST = {
    "right": "pub fn double(a: i32) -> i32 { 2 * a }\n",
    "early": "pub fn double(_: i32) -> i32 { std::process::exit(0) }\n",
    "quiet": "pub fn double(a: i32) -> i32 { a }\n#[macro_export]\nmacro_rules! equal { ($($t:tt)*) => {}; }\n"
    "pub use crate::equal as assert_eq;\n",
    "report": "use std::io::Write;\npub fn double(a: i32) -> i32 {\n"
    '    let one = r#"{ "type": "suite", "event": "started", "test_count": 1 }\n'
    '{ "type": "test", "event": "ok", "name": "ac_1_doubles" }\n'
    '{ "type": "suite", "event": "ok", "passed": 1, "failed": 0, "ignored": 0 }\n"#;\n'
    '    let _ = std::io::stdout().write_all(format!("\\n{one}").as_bytes());\n'
    "    let _ = std::io::stdout().flush();\n    if a > 0 { std::process::exit(0) }\n    a\n}\n",
}


def test_rust_ends_red_whatever_wrong_code_does_to_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"src/{name}.rs": text for name, text in RUST.items()}
    files["src/lib.rs"] = "".join(f"pub mod {name};\n" for name in RUST)
    root = workspace(tmp_path, "rust", files, monkeypatch)
    told = run(root, "rust", [*(given("rust", name) for name in RUST), given("rust", "gone")])
    assert told.pop("right") == [("passed", "")]
    assert {name: ends[0][0] for name, ends in told.items() if ends[0][0] == "passed"} == {}
    assert "do not build" in told["gone"][0][1]
    assert not [path for path in (root / "tests").iterdir() if path.name not in ("e2e.rs",)]
