"""The local tools on the real sandbox: each operation on a small repository (RT-40..RT-46, RT-53)."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from fleet.forge.local.forge import LocalForge
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import PolicyDenied
from fleet.kernel.ids import Digest
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.targets import Targets
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.memory import MemoryRunLedger
from fleet.tools.kit.parts import ToolParts
from fleet.tools.service import Toolbox
from fleet.trees.memory import MemoryBlobStore
from fleet.wiring.sandbox.tools import shipped_tools
from tests.support.repositories import FILES, add_hostile_settings, commit_all, git, make_repository
from tests.support.sandbox import put_tree, state_folder
from tests.support.tool_kit import DirectSandbox, call_of, context_of, texts_in


class Place:
    """A toolbox over the real sandbox, and a forge that stages repositories for it."""

    def __init__(self, state: Path) -> None:
        self.blobs = MemoryBlobStore()
        self.forge = LocalForge(state, self.blobs)
        self.backend = BubblewrapBackend(state, self.blobs)
        parts = ToolParts(sandbox=DirectSandbox(self.backend), blobs=self.blobs, clock=SystemClock(), targets=Targets())
        self.box = Toolbox(
            shipped_tools(parts),
            ledger=MemoryRunLedger(),
            blobs=self.blobs,
            clock=SystemClock(),
            name="sandbox:one/tools",
        )

    async def call(self, name: str, tree: Digest, args: dict[str, Any] | None = None, **facts: Any) -> ToolOutcome:
        tool, op = name.split(".")
        return await self.box.call(call_of(tool, op, **(args or {})), context_of(tree, **facts))


@pytest.fixture
async def place() -> AsyncGenerator[Place]:
    with state_folder() as state:
        place = Place(state)
        health = await place.backend.health()
        if health.status == "down":
            pytest.skip(f"no sandbox can be built here: {'; '.join((*health.unmet, *health.mend))}")
        yield place


async def demo(place: Place, **more: str) -> Digest:
    files = FILES | {name.replace("__", "/").replace("_DOT_", "."): text for name, text in more.items()}
    return await put_tree(place.blobs, {path: text.encode() for path, text in files.items()})


@pytest.mark.rule("RT-43", "RT-44", "RT-53")
async def test_tests_build_and_programs_run_on_the_tree_and_leave_it_as_it_was(place: Place) -> None:
    tree = await demo(place, tests__test_bad_DOT_py="def test_bad():\n    assert 1 == 2\n")

    passed = await place.call("tests.pytest", tree, {"paths": ["tests/test_core.py"]})
    assert (passed.outcome, passed.exit_code, passed.tree_out) == ("succeeded", 0, None)
    assert (passed.content["passed"], passed.content["failed"]) == (1, 0)

    failed = await place.call("tests.pytest", tree, {"options": ["-k", "bad"]})
    assert (failed.outcome, failed.reason, failed.exit_code) == ("failed", "exit_nonzero", 1)
    assert failed.content["failures"][0]["id"] == "tests/test_bad.py::test_bad"
    assert "assert 1 == 2" in failed.text

    built = await place.call("build.build", tree, {"options": []})
    assert (built.outcome, [a.path for a in built.artifacts]) == ("succeeded", ["out/build.json"]), built.text
    said = await place.call("exec.run", tree, {"argv": ["python", "-c", "open('x','w').write('y'); print('hi')"]})
    assert (said.text, said.tree_out) == ("hi", None)
    missing = await place.call("tests.go_test", tree)
    if shutil.which("go") is None:
        assert missing.outcome == "failed"
    with pytest.raises(PolicyDenied, match="program"):
        await place.call("exec.run", tree, {"argv": ["/bin/ls"]})


@pytest.mark.rule("RT-45")
async def test_lint_finds_and_mends_within_the_paths_that_the_role_may_write(place: Place) -> None:
    tree = await demo(place, demo__ugly_DOT_py="import os\nx   = 1\n", requirements_DOT_txt="flask\npytest==9.0\n")

    found = await place.call("lint.lint", tree)
    assert found.outcome == "failed"
    assert ("demo/ugly.py", "F401") in {(f["path"], f["code"]) for f in found.content["findings"]}
    assert (await place.call("lint.format_check", tree)).outcome == "failed"
    assert (await place.call("lint.code_scan", tree, {"paths": ["demo"]})).outcome == "succeeded"
    scanned = await place.call("lint.dependency_scan", tree)
    assert [f["message"].split(":")[0] for f in scanned.content["findings"]] == ["flask"]
    assert "requirements.txt:1: flask" in scanned.text
    clean = await place.call("lint.dependency_scan", await demo(place))
    assert (clean.outcome, clean.reason) == ("succeeded", "no_database")
    assert clean.content["not_checked"][0]["what"] == "known_vulnerabilities"
    assert "were not looked up" in clean.text

    mended = await place.call("lint.format_write", tree, {"paths": ["demo/ugly.py"]}, effect="KEYED")
    assert (await texts_in(place.blobs, mended.tree_out))["demo/ugly.py"] == "import os\n\nx = 1\n"
    with pytest.raises(PolicyDenied, match="writes only tests"):
        await place.call("lint.fix_write", tree, {}, effect="KEYED", write_paths=("tests/**",))


@pytest.mark.rule("RT-46")
async def test_search_answers_from_inside_the_sandbox(place: Place) -> None:
    tree = await demo(
        place,
        demo__store_DOT_py="class Store:\n    def save_user(self, name):\n        return write_row(name)\n",
        demo__app_DOT_go="package demo\n\nfunc (s *S) Serve() {\n}\n",
    )

    text = await place.call("search.text", tree, {"query": "def .ne", "path": "demo"})
    assert [(i["path"], i["line"]) for i in text.content["items"]] == [("demo/core.py", 1)]
    assert (await place.call("search.text", tree, {"query": "write_row("})).content["total"] == 1
    symbols = await place.call("search.symbols", tree, {"query": "s"})
    assert {i["name"] for i in symbols.content["items"]} == {"Store", "Store.save_user", "S.Serve", "test_one"}
    uses = await place.call("search.references", tree, {"query": "one"})
    assert [(i["path"], i["is_definition"]) for i in uses.content["items"] if i["is_definition"]] == [
        ("demo/core.py", True)
    ]
    outline = await place.call("search.outline", tree, {"path": "demo/store.py"})
    assert [i["kind"] for i in outline.content["items"]] == ["class", "method"]
    best = await place.call("search.semantic", tree, {"query": "saving users in a store"})
    assert best.content["items"][0]["name"] == "Store.save_user"
    assert (await place.call("search.reindex", tree)).content["total"] >= 2
    shape = {"query": "write_row($NAME)", "language": "python", "path": "demo"}
    found = await place.call("search.structure", tree, shape)
    assert found.content["items"] == [{"path": "demo/store.py", "line": 3, "end": 3, "text": "write_row(name)"}]
    assert (await place.call("search.structure", tree, {**shape, "query": "no_such($A)"})).content["total"] == 0
    unreadable = await place.call("search.structure", tree, {**shape, "query": "a b c"})
    assert (unreadable.outcome, "Cannot parse" in unreadable.text) == ("failed", True)
    assert (await place.call("search.text", tree, {"query": "x", "path": "nowhere"})).reason == "not_found"
    endless = await place.call(
        "search.text", await demo(place, a_DOT_txt="a" * 4000), {"query": "(a+)+$b"}, timeout_s=1
    )
    assert endless.outcome == "timed_out"


@pytest.mark.check("S21")
@pytest.mark.rule("RT-41", "RT-58")
async def test_git_works_on_the_staged_repository_without_its_settings(tmp_path: Path, place: Place) -> None:
    source, marker = tmp_path / "source", tmp_path / "marker"
    first = make_repository(source)
    second = commit_all(source, {"README.md": "# second\n"}, "second")
    git(source, "branch", "old", first)
    add_hostile_settings(source, marker)
    staged = await place.forge.stage(str(source))
    base = await demo(place, README_DOT_md="# second\n")
    tree = await demo(place, README_DOT_md="# second\n", demo__core_DOT_py="def one() -> int:\n    return 11\n")
    about: dict[str, Any] = {"repository": staged.name, "base_tree": base}

    status = await place.call("git.status", tree, **about)
    assert status.content == {"head": second, "changes": [{"change": "M", "path": "demo/core.py"}]}
    assert "+    return 11" in (await place.call("git.diff", tree, {"path": "demo/core.py"}, **about)).text
    log = await place.call("git.log", tree, {"max_count": 5}, **about)
    assert [c["subject"] for c in log.content["commits"]] == ["second", "work"]
    assert (await place.call("git.show", tree, {"ref": "old", "path": "README.md"}, **about)).text == "# demo\n"
    branches = await place.call("git.branch_list", tree, **about)
    assert branches.content["branches"] == {"main": second, "old": first}
    assert (await place.call("git.add", tree, {"paths": ["demo"]}, **about)).outcome == "succeeded"
    assert (await place.call("git.add", tree, {"paths": ["no"]}, **about)).reason == "not_found"
    created = await place.call("git.branch_create", tree, {"branch": "fleet/x"}, **about)
    assert created.content == {"branch": "fleet/x", "commit": second}
    assert (await place.call("git.branch_create", tree, {"branch": "old"}, **about)).reason == "conflict"
    out = await place.call("git.checkout", tree, {"branch": "old"}, effect="KEYED", **about)
    assert (await texts_in(place.blobs, out.tree_out))["README.md"] == "# demo\n"

    made = await place.call("git.commit", tree, {"message": "Eleven"}, effect="KEYED", **about)
    again = await place.call("git.commit", tree, {"message": "Eleven"}, effect="KEYED", **about)
    assert made.content == again.content
    assert {a.path.rpartition("/")[2] for a in made.artifacts} == {"commit.txt", "new.pack", "new.idx"}
    assert (await place.call("git.commit", base, {"message": "None"}, effect="KEYED", **about)).reason == "conflict"
    assert not marker.exists()


@pytest.mark.rule("RT-41", "PL-43")
async def test_merge_candidate_joins_lines_and_names_conflicts(tmp_path: Path, place: Place) -> None:
    source = tmp_path / "source"
    make_repository(source, {"a.txt": "1\n2\n3\n4\n5\n", "b.txt": "b\n", "gone.txt": "x\n"})
    commit_all(source, {"a.txt": "one\n2\n3\n4\n5\n", "c.txt": "theirs\n"})
    staged = await place.forge.stage(str(source))
    base = await put_tree(place.blobs, {"a.txt": b"1\n2\n3\n4\n5\n", "b.txt": b"b\n", "gone.txt": b"x\n"})
    mine = await put_tree(place.blobs, {"a.txt": b"1\n2\n3\n4\nfive\n", "b.txt": b"B\n"})
    about: dict[str, Any] = {"repository": staged.name, "base_tree": base, "effect": "KEYED"}

    merged = await place.call("git.merge_candidate", mine, {"message": "Join"}, **about)
    assert await texts_in(place.blobs, merged.tree_out) == {
        "a.txt": "one\n2\n3\n4\nfive\n",
        "b.txt": "B\n",
        "c.txt": "theirs\n",
    }
    clash = await put_tree(place.blobs, {"a.txt": b"uno\n2\n3\n4\n5\n", "b.txt": b"b\n", "gone.txt": b"x\n"})
    refused = await place.call("git.merge_candidate", clash, {"message": "Join"}, **about)
    assert (refused.outcome, refused.reason, refused.tree_out) == ("failed", "conflict", None)
    assert refused.content == {"conflicts": ["a.txt"]}
