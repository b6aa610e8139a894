"""A story on the small repository of each language: what a team without mistakes answers, and what is wrong with it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.support.language_repos import Language


class Sums(NamedTuple):
    """The source that the story changes, before, right and wrong, and the tests of its criteria."""

    path: str
    before: str
    right: str
    wrong: str
    """Meets the first criterion alone."""
    tests: str
    names: tuple[str, ...]

    def change(self, source: str) -> str:
        """A reply that writes the source."""
        return f"file: {self.path}\n```\n{source}```\n"


_NODE = "exports.add = (a, b) => a + b;\n"
_GO = "package sums\n\n// Add adds.\nfunc Add(a, b int) int {\n\treturn a + b\n}\n"
_RUST = (
    "pub fn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn adds() {\n"
    "        assert_eq!(super::add(1, 2), 3);\n    }\n}\n"
)
STORIES: dict[Language, Sums] = {
    "node": Sums(
        "sums.js",
        _NODE,
        f"{_NODE}exports.double = (a) => (a > 0 ? 2 * a : 0);\n",
        f"{_NODE}exports.double = (a) => 2 * a;\n",
        "```js\n// file: test/double.test.mjs\nimport { test } from 'node:test';\nimport assert from 'node:assert';\n"
        "import * as sums from '../sums.js';\n\ntest('ac-1 doubles', () => {\n"
        "  assert.strictEqual(sums.double(4), 8);\n});\n\ntest('ac-2 nothing below zero', () => {\n"
        "  assert.strictEqual(sums.double(-3), 0);\n});\n\ntest('sums stay as they are', () => {\n"
        "  assert.strictEqual(sums.add(1, 2), 3);\n});\n```\n",
        ("ac-1 doubles", "ac-2 nothing below zero", "sums stay as they are"),
    ),
    "go": Sums(
        "sums.go",
        _GO,
        f"{_GO}\nfunc Double(a int) int {{\n\tif a < 0 {{\n\t\treturn 0\n\t}}\n\treturn 2 * a\n}}\n",
        f"{_GO}\nfunc Double(a int) int {{\n\treturn 2 * a\n}}\n",
        '```go\n// file: double_test.go\npackage sums_test\n\nimport (\n\t"testing"\n\n\t"example.org/sums"\n)\n\n'
        "func Test_ac_1_doubles(t *testing.T) {\n\tif got := sums.Double(4); got != 8 {\n"
        '\t\tt.Fatalf("got %d", got)\n\t}\n}\n\nfunc TestAC2NothingBelowZero(t *testing.T) {\n'
        '\tif got := sums.Double(-3); got != 0 {\n\t\tt.Fatalf("got %d", got)\n\t}\n}\n```\n',
        ("Test_ac_1_doubles", "TestAC2NothingBelowZero"),
    ),
    "rust": Sums(
        "src/lib.rs",
        _RUST,
        _RUST.replace("}\n\n#[cfg", "}\n\npub fn double(a: i32) -> i32 {\n    2 * a.max(0)\n}\n\n#[cfg", 1),
        _RUST.replace("}\n\n#[cfg", "}\n\npub fn double(a: i32) -> i32 {\n    2 * a\n}\n\n#[cfg", 1),
        "```rust\n// file: tests/double.rs\nuse sums::double;\n\n#[test]\nfn ac_1_doubles() {\n"
        "    assert_eq!(double(4), 8);\n}\n\n#[test]\nfn ac_2_nothing_below_zero() {\n"
        "    assert_eq!(double(-3), 0);\n}\n```\n",
        ("ac_1_doubles", "ac_2_nothing_below_zero"),
    ),
}


def story_of(lang: Language) -> dict[str, Any]:
    """The story: a function that doubles, with two criteria and without examples."""
    return {
        "title": "As an accountant, I want amounts doubled",
        "description": f"Add a function that doubles a number to {STORIES[lang].path}; below zero the result is zero.",
        "acceptance_criteria": [
            "Given the number 4, when it is doubled, then the result is 8",
            "Given the number -3, when it is doubled, then the result is 0",
        ],
        "constraints": {"paths": [STORIES[lang].path]},
        "rigor": "L1",
    }


def replies_for(lang: Language, source: str | None = None, **instead: str) -> dict[str, Any]:
    """The replies of a team whose engineers write this source; the right one when none is given."""
    sums = STORIES[lang]
    change = sums.change(source or sums.right)
    criteria = [{"ac": f"ac-{n}", "how": "a test checks it"} for n in (1, 2)]
    design = {
        "summary": "one more function",
        "interface": "double",
        "path": sums.path,
        "criteria": criteria,
        "risk": "",
    }
    task = {
        "title": "Add a function that doubles",
        "description": f"Add it to {sums.path}.",
        "role": "developer",
        "kind": "code",
        "estimated_hours": 1,
        "priority": 1,
        "keywords": ["double", "numbers"],
        "depends_on": [],
        "acceptance_refs": ["ac-1", "ac-2"],
        "paths": [sums.path],
    }
    document = {"title": "Doubling", "summary": "Numbers can be doubled.", "usage": "double(4)"}
    return {
        "propose": [json.dumps({**design, "risk": risk}) for risk in ("none", "large numbers", "fractions")],
        "derive": json.dumps({"tasks": [task]}),
        "change": change,
        "tests": sums.tests,
        "document": json.dumps(document),
        **instead,
    }
