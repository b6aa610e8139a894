"""One small sound repository in each of Go, Node and Rust, without packages of others; and where their programs are."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import pytest

Language = Literal["go", "node", "rust"]

GO = {
    "go.mod": "module example.org/sums\n\ngo 1.19\n",
    "sums.go": "package sums\n\n// Add adds.\nfunc Add(a, b int) int {\n\tif a > 100 {\n\t\treturn 0\n\t}\n"
    "\treturn a + b\n}\n",
    "sums_test.go": 'package sums\n\nimport "testing"\n\nfunc TestAdd(t *testing.T) {\n\tif Add(1, 2) != 3 {\n'
    '\t\tt.Fatal("wrong sum")\n\t}\n}\n',
    "e2e_test.go": '//go:build e2e\n\npackage sums\n\nimport "testing"\n\nfunc TestE2EWhole(t *testing.T) {}\n',
}
NODE = {
    "package.json": '{"name": "sums", "version": "1.0.0"}\n',
    "sums.js": "exports.add = (a, b) => {\n  if (a > 100) {\n    return 0;\n  }\n  return a + b;\n};\n",
    "test/sums.test.js": "const test = require('node:test');\nconst assert = require('node:assert');\n"
    "const { add } = require('../sums.js');\n\ntest('adds', () => {\n  assert.strictEqual(add(1, 2), 3);\n});\n",
    "test/whole.e2e.js": "require('node:test')('whole', () => {});\n",
}
RUST = {
    "Cargo.toml": '[package]\nname = "sums"\nversion = "0.1.0"\nedition = "2021"\n',
    "src/lib.rs": "pub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n"
    "    fn adds() {\n        assert_eq!(super::add(1, 2), 3);\n    }\n}\n",
    "tests/e2e.rs": "#[test]\nfn whole() {\n    assert_eq!(sums::add(1, 1), 2);\n}\n",
}
REPOS: dict[Language, dict[str, str]] = {"go": GO, "node": NODE, "rust": RUST}
WORSE: dict[Language, dict[str, str]] = {
    "go": {
        "sums.go": 'package sums\n\nimport "fmt"\n\nfunc Add(a, b int) int {\n'
        '  fmt.Printf("%d", "x")\n  return a - b\n}\n'
    },
    "node": {"sums.js": "exports.add = (a, b) => {\n  return a - b;\n};\n"},
    "rust": {"src/lib.rs": RUST["src/lib.rs"].replace("    a + b\n", "  return a - b;\n")},
}
"""Changes after which the test fails; with one finding of each analyser that the language has."""
PROGRAMS: dict[Language, str] = {"go": "go", "node": "node", "rust": "cargo"}


@functools.cache
def folder_of(lang: Language) -> Path | None:
    """The folder with the language's own programs (not those that only choose a version), None when there is none."""
    if lang == "rust":
        if shutil.which("rustc") is None:
            return None
        done = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=False, cwd="/")
        return Path(done.stdout.strip(), "bin") if done.returncode == 0 else None
    found = shutil.which(PROGRAMS[lang])
    return Path(found).parent if found else None


def path_for(lang: Language) -> str:
    """PATH with the programs of the language; the test is skipped where they are not installed."""
    folder = folder_of(lang)
    if folder is None:
        pytest.skip(f"{PROGRAMS[lang]} is not installed on this machine")
    return f"{folder}{os.pathsep}{os.environ['PATH']}"
