"""The pipeline of Go, Node and Rust end to end: a small repository of each, in the bubblewrap sandbox."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import pytest

from fleet.kernel.errors import SandboxUnavailable
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.policy.runs.toolchains import DEFAULT_TOOLCHAINS, ToolchainConfig
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.trees.memory import MemoryBlobStore
from fleet.workspace.service.report import Measurement
from fleet.workspace.service.workspace import WorkspaceService
from tests.support.language_repos import REPOS, WORSE, Language, path_for
from tests.support.sandbox import put_tree, state_folder

pytestmark = pytest.mark.wide

IDS = {"run_id": EntityId("rn-1"), "story_id": StoryId("st-1")}
GONE = ToolchainConfig(language="go", folder="/no/such/go")


class Place:
    """A sandbox and the service over it."""

    def __init__(self, state: Path) -> None:
        self.blobs = MemoryBlobStore()
        self.backend = BubblewrapBackend(state, self.blobs, toolchains={**DEFAULT_TOOLCHAINS, "gone": GONE})
        self.space = WorkspaceService(self.run, self.blobs)
        self.results: list[RunResult] = []

    async def run(self, spec: RunSpec) -> RunResult:
        """One run under an id of its own."""
        self.results.append(await self.backend.run(spec, run_id=f"rn-{len(self.results)}"))
        return self.results[-1]

    async def tree(self, files: Mapping[str, str]) -> Digest:
        """A recorded tree of these texts."""
        return await put_tree(self.blobs, {path: text.encode() for path, text in files.items()})

    async def measure(self, files: Mapping[str, str], base: Measurement | None = None) -> Measurement:
        """The report of these files."""
        return await self.space.measure(await self.tree(files), rigor="L1", base=base, **IDS)


@pytest.fixture
async def place() -> AsyncGenerator[Place]:
    with state_folder() as state:
        place = Place(state)
        health = await place.backend.health()
        if health.status == "down":
            pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
        yield place


_GO_WRONG = WORSE["go"]["sums.go"].replace('  fmt.Printf("%d", "x")\n', "").replace('import "fmt"\n\n', "")
_NODE_WRONG = WORSE["node"]["sums.js"]
_RUST_WRONG = REPOS["rust"]["src/lib.rs"].replace("    a + b\n", "    a - b\n")


def _go(init: str, *imports: str) -> dict[str, str]:
    named = "".join(f'import "{name}"\n' for name in ("os", "strings", *imports))
    body = f'func init() {{\n\tif strings.HasSuffix(os.Args[0], ".test") {{\n\t\t{init}\n\t}}\n}}\n'
    return {"sums.go": _GO_WRONG.replace("package sums\n", f"package sums\n\n{named}\n{body}", 1)}


_PASSES = "--- PASS: TestAdd (0.00s)\\nPASS\\n"
WAYS: Mapping[Language, Mapping[str, Mapping[str, str | None]]] = {
    "go": {
        "init_ends_the_program": _go("os.Exit(0)"),
        "init_says_pass_and_ends": _go(
            f'fmt.Print("=== RUN   TestAdd\\n{_PASSES}"); os.Exit(0)',
            "fmt",
        ),
        "test_main_of_its_own": {
            "sums.go": _GO_WRONG,
            "main_test.go": 'package sums\n\nimport (\n\t"fmt"\n\t"testing"\n)\n\n'
            f'func TestMain(m *testing.M) {{ fmt.Print("=== RUN   TestAdd\\n{_PASSES}") }}\n',
        },
        "says_pass_and_hides_the_rest": _go(
            f'fmt.Print("=== RUN   TestAdd\\n{_PASSES}"); os.Stdout, _ = os.Open(os.DevNull)', "fmt"
        ),
        "no_tests_are_asked_for": _go('os.Args = append(os.Args, "-test.run=^$")'),
    },
    "node": {
        "ends_the_process": {"sums.js": f"process.exit(0);\n{_NODE_WRONG}"},
        "ends_it_at_its_end": {"sums.js": f"process.on('exit', () => {{ process.exitCode = 0; }});\n{_NODE_WRONG}"},
        "asserts_nothing": {
            "sums.js": "const assert = require('node:assert');\nassert.strictEqual = () => {};\n"
            f"assert.equal = () => {{}};\n{_NODE_WRONG}"
        },
        "tests_nothing": {
            "sums.js": "const Module = require('node:module');\nconst load = Module._load;\n"
            "Module._load = (name, ...rest) => name === 'node:test' ? () => {} : load(name, ...rest);\n"
            f"require('node:test').test = () => {{}};\nprocess.nextTick(() => process.exit(0));\n{_NODE_WRONG}"
        },
        "writes_the_events": {
            "sums.js": "const fs = require('fs');\nfs.writeFileSync('out/node-test.json', JSON.stringify({type: "
            "'passed', name: 'adds', nesting: 0, file: 'test/sums.test.js', suite: false, skipped: false, inner: "
            f'false, message: \'\'}}) + \'\\n{{"type":"end","results":1}}\\n\');\n{_NODE_WRONG}'
        },
        "kills_its_parent": {"sums.js": f"process.kill(process.ppid, 'SIGKILL');\n{_NODE_WRONG}"},
        "test_is_gone": {"sums.js": _NODE_WRONG, "test/sums.test.js": None},
    },
    "rust": {
        "no_harness": {
            "Cargo.toml": f"{REPOS['rust']['Cargo.toml']}\n[lib]\nharness = false\n",
            "src/lib.rs": f"{_RUST_WRONG}\npub fn main() {{}}\n",
        },
        "no_tests": {"Cargo.toml": f"{REPOS['rust']['Cargo.toml']}\n[lib]\ntest = false\n", "src/lib.rs": _RUST_WRONG},
        "tests_are_not_compiled": {"src/lib.rs": _RUST_WRONG.replace("#[cfg(test)]", "#[cfg(any())]")},
        "build_script_weakens_tests": {
            "src/lib.rs": _RUST_WRONG,
            "build.rs": 'fn main() {\n    let t = std::fs::read_to_string("src/lib.rs").unwrap();\n'
            '    std::fs::write("src/lib.rs", t.replace("add(1, 2), 3", "add(1, 2), -1")).unwrap();\n}\n',
        },
        "ends_before_main": {
            "src/lib.rs": '#[used]\n#[link_section = ".init_array"]\nstatic END: extern "C" fn() = end;\n\n'
            f'extern "C" fn end() {{\n    std::process::exit(0);\n}}\n\n{_RUST_WRONG}'
        },
    },
}


@pytest.mark.timeout(1200)
@pytest.mark.rule("RC-80")
@pytest.mark.parametrize("lang", sorted(WAYS))
async def test_wrong_code_of_a_language_is_red_whatever_hides_it(lang: Language, place: Place) -> None:
    path_for(lang)
    ways, stages = WAYS[lang], ("build", "unit")
    if lang == "go":
        # Each way is a package: Go builds its library once for all of them.
        files = {"go.mod": REPOS["go"]["go.mod"]}
        tested = {path: text for path, text in REPOS["go"].items() if path in ("sums.go", "sums_test.go")}
        base = await place.measure(files | {f"{way}/{path}": text for way in ways for path, text in tested.items()})
        files |= {f"{way}/{path}": text for way in ways for path, text in {**tested, **ways[way]}.items() if text}
        found = await place.space.measure(await place.tree(files), rigor="L1", base=base, stages=stages, **IDS)
        assert found.report.unit is not None
        red = " ".join(failure.id for failure in found.report.unit.failures)
        assert [way for way in ways if way not in red] == []
        return
    base = await place.measure(REPOS[lang])
    green = list[str]()
    for way, changes in ways.items():
        texts = {path: text for path, text in {**REPOS[lang], **changes}.items() if text is not None}
        found = await place.space.measure(await place.tree(texts), rigor="L1", base=base, stages=stages, **IDS)
        if found.keeps(base):
            green.append(way)
    assert green == []


@pytest.mark.rule("RC-34", "RC-47", "RC-60", "RC-61", "RC-62", "RC-63", "RC-64", "RC-65", "RC-66", "RC-69")
@pytest.mark.parametrize("lang", sorted(REPOS))
async def test_pipeline_of_a_language_passes_and_fails_rightly(lang: Language, place: Place) -> None:
    path_for(lang)
    base = await place.measure(REPOS[lang])
    log = place.results[-1].stderr.text
    report = base.report
    assert report.complete, log
    assert report.build is not None
    assert report.build.ok, log
    assert report.unit is not None
    assert (report.unit.ok, report.unit.passed, report.unit.skipped) == (True, 1, 0), log
    assert report.e2e is not None
    assert report.e2e.passed == 1, log
    covered = report.coverage and (report.coverage.tool, report.coverage.new_lines, report.coverage.new_covered)
    assert covered == {"go": ("go cover", 4, 3), "node": ("node", 4, 3), "rust": None}[lang]
    static = report.static and (report.static.gate, [tool.name for tool in report.static.tools])
    assert static == {"go": ("OK", ["go vet"]), "node": None, "rust": ("OK", ["clippy"])}[lang], log
    lint = report.lint and (report.lint.tool, report.lint.errors)
    assert lint == {"go": ("gofmt", 0), "node": None, "rust": ("rustfmt", 0)}[lang], log
    assert report.security is not None
    assert (report.security.secrets_found, report.security.critical) == (0, None)

    after = await place.measure({**REPOS[lang], **WORSE[lang]}, base)
    log = place.results[-1].stderr.text
    report = after.report
    assert report.unit is not None
    assert (report.unit.ok, report.unit.passed, report.unit.failed, report.unit.errored) == (False, 0, 1, 0), log
    assert (report.lint and report.lint.errors) == {"go": 1, "node": None, "rust": 1}[lang], log
    assert [f.code for f in after.static] == {"go": ["vet/printf"], "node": [], "rust": ["clippy::needless_return"]}[
        lang
    ]
    assert place.results[0].image == place.results[1].image != (await place.run(RunSpec(argv=("true",)))).image


@pytest.mark.rule("RC-19", "RC-34")
async def test_toolchain_that_is_not_there_is_named_and_nothing_is_started(place: Place) -> None:
    result = await place.run(RunSpec(argv=("go", "version"), toolchain="gone"))
    assert (result.status, result.reason, result.exit_code) == ("error", "image_unavailable", None)
    assert "/no/such/go lacks go, gofmt" in result.stderr.text
    assert "toolchains.gone.folder" in result.limits["toolchain"]
    with pytest.raises(SandboxUnavailable, match="image_unavailable: the toolchain gone is not on this machine"):
        await place.space.measure(await place.tree(REPOS["go"]), rigor="L1", toolchain="gone", **IDS)
