"""Tool `files` on recorded trees (RT-40, RT-57)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import PolicyDenied
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.targets import Targets
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd
from fleet.tools.kit.files import FilesTool
from fleet.tools.kit.parts import ToolParts
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import Mode
from tests.support.sandbox import put_tree
from tests.support.tool_kit import DirectSandbox, call_of, context_of, texts_in

FILES: dict[str, bytes | tuple[Mode, bytes]] = {
    "a.txt": b"one\ntwo\nthree\n",
    "src/main.py": ("100755", b"print(1)\n"),
    "src/deep/x.bin": b"\0\1",
    "link": ("120000", b"src/main.py"),
    "out": ("120000", b"/etc/passwd"),
    "vendor": ("160000", b"c"),
}


class Place:
    def __init__(self) -> None:
        self.blobs = MemoryBlobStore()
        sandbox = DirectSandbox(MemorySandboxBackend(lambda _: ProgramEnd(), self.blobs))
        self.tool = FilesTool(ToolParts(sandbox=sandbox, blobs=self.blobs, clock=SystemClock(), targets=Targets()))

    async def call(self, op: str, args: dict[str, Any], **facts: Any) -> ToolOutcome:
        tree = await put_tree(self.blobs, FILES)
        return await self.tool.call(call_of("files", op, **args), context_of(tree, **facts))


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.mark.rule("RT-40")
async def test_reading_shows_lines_folders_and_facts(place: Place) -> None:
    whole = await place.call("read", {"path": "a.txt"})
    assert (whole.text, whole.tree_out) == ("one\ntwo\nthree", None)
    part = await place.call("read", {"path": "a.txt", "first_line": 2, "last_line": 2})
    assert (part.text, part.content["last_line"]) == ("two", 2)
    assert (await place.call("read", {"path": "src/deep/x.bin"})).content["is_binary"] is True
    listed = await place.call("list", {"path": "."})
    assert listed.content["paths"] == ["a.txt", "link", "out", "src/", "vendor"]
    assert (await place.call("list", {"path": "src", "recursive": True})).content["total"] == 2
    assert (await place.call("list", {"path": "a.txt"})).content["paths"] == ["a.txt"]
    assert (await place.call("info", {"path": "src"})).content == {"path": "src", "kind": "folder", "files": 2}
    assert (await place.call("info", {"path": "out"})).content["target"] == "/etc/passwd"
    assert (await place.call("info", {"path": "vendor"})).content["kind"] == "submodule"
    assert (await place.call("search", {"pattern": "MAIN"})).content["paths"] == ["src/main.py"]
    assert (await place.call("search", {"pattern": "**/*.bin", "path": "src"})).content["total"] == 1
    assert (await place.call("search", {"pattern": "a.t?t", "path": "a.txt"})).content["total"] == 1


@pytest.mark.parametrize(
    ("op", "args", "reason"),
    [
        ("read", {"path": "no.txt"}, "not_found"),
        ("read", {"path": "src"}, "is_folder"),
        ("read", {"path": "vendor"}, "is_submodule"),
        ("list", {"path": "no"}, "not_found"),
        ("info", {"path": "no"}, "not_found"),
        ("search", {"pattern": "x", "path": "no"}, "not_found"),
        ("write", {"path": "src", "content": ""}, "is_folder"),
        ("write", {"path": "a.txt/b", "content": ""}, "not_a_folder"),
        ("edit", {"path": "a.txt", "old": "none", "new": ""}, "text_not_found"),
        ("edit", {"path": "a.txt", "old": "", "new": "x"}, "text_not_found"),
        ("edit", {"path": "a.txt", "old": "o", "new": ""}, "not_unique"),
        ("edit", {"path": "src/deep/x.bin", "old": "o", "new": ""}, "is_binary"),
        ("mkdir", {"path": "a.txt"}, "exists"),
        ("move", {"path": "no", "to": "b"}, "not_found"),
        ("move", {"path": "src", "to": "src/in"}, "into_itself"),
        ("move", {"path": "src", "to": "a.txt"}, "exists"),
        ("move", {"path": "src", "to": "a.txt/b"}, "not_a_folder"),
        ("delete", {"path": "no"}, "not_found"),
    ],
)
async def test_what_cannot_be_done_is_an_outcome(place: Place, op: str, args: dict[str, Any], reason: str) -> None:
    outcome = await place.call(op, args)
    assert (outcome.outcome, outcome.reason, outcome.tree_out) == ("failed", reason, None)


@pytest.mark.rule("RT-40")
async def test_writing_makes_a_new_tree_and_keeps_the_rest(place: Place) -> None:
    async def after(op: str, **args: Any) -> dict[str, str]:
        outcome = await place.call(op, args)
        assert outcome.outcome == "succeeded"
        return dict(await texts_in(place.blobs, outcome.tree_out))

    assert (await after("write", path="new/b.txt", content="b"))["new/b.txt"] == "b"
    assert (await after("edit", path="a.txt", old="two", new="2"))["a.txt"] == "one\n2\nthree\n"
    assert (await after("append", path="a.txt", content="4\n"))["a.txt"].endswith("three\n4\n")
    assert (await after("append", path="fresh", content="4"))["fresh"] == "4"
    moved = await after("move", path="src", to="lib")
    assert {p for p in moved if "main" in p} == {"lib/main.py"}
    assert not [p for p in await after("delete", path="src") if p.startswith("src")]
    assert "out" not in await after("delete", path="out")
    assert (await place.call("mkdir", {"path": "empty"})).tree_out is None
    assert (await place.call("write", {"path": "a.txt", "content": "one\ntwo\nthree\n"})).tree_out is None


@pytest.mark.check("S2", "S5")
@pytest.mark.rule("RT-57")
@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("read", {"path": "../x"}),
        ("read", {"path": "/workspace-evil/x"}),
        ("read", {"path": "src/../../x"}),
        ("read", {"path": ".git/config"}),
        ("read", {"path": "out"}),
        ("read", {"path": "link"}),
        ("list", {"path": "link/deep"}),
        ("write", {"path": "out", "content": "x"}),
        ("write", {"path": "out/x", "content": "x"}),
        ("append", {"path": "link", "content": "x"}),
        ("edit", {"path": "link", "old": "print", "new": "x"}),
        ("move", {"path": "a.txt", "to": "link/a"}),
        ("mkdir", {"path": "link/new"}),
    ],
)
async def test_paths_outside_and_links_are_refused(place: Place, op: str, args: dict[str, Any]) -> None:
    with pytest.raises(PolicyDenied) as caught:
        await place.call(op, args)
    assert caught.value.details["rule_id"] == "path_outside"


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("write", {"path": "a.txt", "content": "x"}),
        ("edit", {"path": "a.txt", "old": "two", "new": "x"}),
        ("append", {"path": "a.txt", "content": "x"}),
        ("move", {"path": "a.txt", "to": "tests/a.txt"}),
        ("delete", {"path": "src"}),
        ("delete", {"path": "."}),
    ],
)
async def test_writing_is_bound_to_the_paths_of_the_role(place: Place, op: str, args: dict[str, Any]) -> None:
    with pytest.raises(PolicyDenied) as caught:
        await place.call(op, args, write_paths=("tests/**",))
    assert caught.value.details["rule_id"] == "path_not_granted"


async def test_diff_compares_with_the_tree_that_the_task_began_with(place: Place) -> None:
    base = await put_tree(
        place.blobs, {**FILES, "a.txt": b"one\n2\nthree\n", "gone.txt": b"g\n", "src/main.py": b"print(1)\n"}
    )
    outcome = await place.call("diff", {}, base_tree=base)
    assert [f["change"] for f in outcome.content["files"]] == ["modified", "removed", "modified"]
    assert "-2\n+two\n" in outcome.text
    assert "+++ /dev/null" in outcome.text
    assert "new mode 100755" in outcome.text
    assert (await place.call("diff", {"path": "src/deep"}, base_tree=base)).text == "no difference"
    fresh = await place.call("diff", {})
    assert "Binary or large files differ: src/deep/x.bin" in fresh.text
