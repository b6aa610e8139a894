"""The workspace pipeline end to end: a real repository, the bubblewrap sandbox, the local forge."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from fleet.forge.local.forge import LocalForge
from fleet.forge.local.head import look_at_head
from fleet.forge.port import StagedRepository
from fleet.kernel.errors import ToolFailed
from fleet.kernel.ids import EntityId, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import decode_tree
from fleet.workspace.service.workspace import PROTECTED_FROM_AUTHORS, WorkspaceService
from tests.support.repositories import FILES, add_hostile_settings, commit_all, git, make_repository
from tests.support.sandbox import state_folder

IDS = {"run_id": EntityId("rn-1"), "story_id": StoryId("st-1")}
E2E = "import pytest\n\n\n@pytest.mark.e2e\ndef test_whole():\n    assert True\n"


class Place:
    """Forge and sandbox over one state folder and one blob store."""

    def __init__(self, state: Path) -> None:
        self.blobs = MemoryBlobStore()
        self.forge = LocalForge(state, self.blobs)
        self.backend = BubblewrapBackend(state, self.blobs)
        self.space = WorkspaceService(self.run, self.blobs)
        self._runs = 0

    async def run(self, spec: RunSpec) -> RunResult:
        self._runs += 1
        return await self.backend.run(spec, run_id=f"rn-{self._runs}")


@pytest.fixture
async def place() -> Generator[Place]:  # type: ignore[misc]
    with state_folder() as state:
        place = Place(state)
        health = await place.backend.health()
        if health.status == "down":
            pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
        yield place


@pytest.mark.rule("RC-70", "RC-71", "RC-77", "PL-43", "PL-52")
async def test_story_of_a_change_from_repository_to_branch(tmp_path: Path, place: Place) -> None:
    source, marker = tmp_path / "source", tmp_path / "marker"
    make_repository(source, FILES | {"tests/test_e2e.py": E2E, "tests/test_old.py": "def test_old():\n    assert 0\n"})
    git(source, "update-index", "--add", "--cacheinfo", f"160000,{'a' * 40},vendor/lib")
    git(source, "commit", "-q", "-m", "submodule")
    commit_all(source, {"out/kept.txt": "the project's own\n", "coverage/x.txt": "", ".gitattributes": "* text\n"})
    git(source, "gc", "-q")
    add_hostile_settings(source, marker)
    space = place.space

    staged = await place.forge.stage(str(source))
    tree = await space.checkout(staged)
    files = decode_tree(await place.blobs.get(tree))
    assert {"out/kept.txt", "coverage/x.txt", "demo/core.py"} <= set(files)
    assert not [path for path in files if path.startswith(".fleet-out")]
    assert not any("changed" in line for line in look_at_head(str(source)).warnings)

    base = await space.measure(tree, rigor="L1", **IDS)
    assert base.failing == ("tests/test_old.py::test_old",)
    assert base.report.complete

    refused = await space.apply(tree, [edit("tests/test_core.py", "X = 1\n", "file")], protect=PROTECTED_FROM_AUTHORS)
    assert refused.tree is None
    assert "protected" in refused.problems[0]
    applied = await space.apply(tree, [edit("demo/core.py", "def two() -> int:\n    return 2\n")])
    assert applied.tree is not None
    assert (applied.files, applied.removed) == (("demo/core.py",), 0)

    tests = "from demo.core import two\n\ndef test_two(): assert two() == 2\n\ndef test_no(): assert two() == 3\n"
    run = await space.run_tests(applied.tree, {"test_new.py": tests})
    assert run.signature == {"test_two": "passed", "test_no": "failed:AssertionError"}

    test = "from demo.core import two\n\n\ndef test_two():\n    assert two() == 2\n"
    applied = await space.apply(applied.tree, [edit("tests/test_two.py", test, "file")])
    assert applied.tree is not None
    report = (await space.measure(applied.tree, rigor="L1", base=base, **IDS)).report
    assert report.unit is not None
    assert (report.unit.ok, report.unit.passed, report.unit.known_failing) == (True, 2, base.failing)
    assert report.coverage is not None
    assert (report.coverage.new_lines, report.coverage.new_pct) == (2, 100)
    assert report.e2e is not None
    assert (report.e2e.passed, report.lint and report.lint.errors) == (1, 0)

    facts = {"author": "developer-001", "date_s": 1700000100}
    first = await space.commit(applied.tree, staged, parent=staged.commit, message="Add two", **facts)
    assert first == await space.commit(applied.tree, staged, parent=staged.commit, message="Add two", **facts)
    docs = await space.apply(applied.tree, [edit("docs/two.md", "# Two\n", "file")])
    assert docs.tree is not None
    second = await space.commit(
        docs.tree, staged, parent=first.commit, previous=[first.pack], message="Document two", **facts
    )
    await place.forge.publish(str(source), "fleet/st-1", second, expected_old=None)

    assert not marker.exists()
    (source / ".git/config").write_text("[core]\n\trepositoryformatversion = 0\n")
    for hook in (source / ".git/hooks").iterdir():
        hook.unlink()
    assert git(source, "rev-parse", "main") == staged.commit
    assert git(source, "log", "--format=%an: %s", "main..fleet/st-1").splitlines() == [
        "developer-001: Document two",
        "developer-001: Add two",
    ]
    changed = git(source, "diff", "--name-only", "main", "fleet/st-1").splitlines()
    assert changed == ["demo/core.py", "docs/two.md", "tests/test_two.py"]
    git(source, "fsck", "--full", "--strict")


async def test_checkout_of_a_commit_that_is_not_there_fails_with_a_reason(tmp_path: Path, place: Place) -> None:
    make_repository(tmp_path / "source")
    staged = await place.forge.stage(str(tmp_path / "source"))
    with pytest.raises(ToolFailed, match="could not be checked out"):
        await place.space.checkout(StagedRepository(name=staged.name, commit="1" * 40, branch="main"))


def edit(path: str, content: str, mode: str = "definitions") -> dict[str, str]:
    return {"path": path, "mode": mode, "content": content}
