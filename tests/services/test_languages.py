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
