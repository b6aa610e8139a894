"""Texts for prompts and files: the same tree and story give the same bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.context.port import Pack, PackRequest
from fleet.events.task import TreeMerged
from fleet.kernel.ids import Digest
from fleet.knowledge.service import CodeKnowledge
from fleet.log.memory import MemoryEventLog
from fleet.owner.duties import texts
from fleet.owner.workbench import Workbench
from fleet.trees.tree import FileEntry, encode_tree
from tests.support.bench import World
from tests.support.story_events import PO, StoryLog, created_payload


async def bench_of(files: dict[str, str], **constraints: Any) -> tuple[Workbench, Digest]:
    """A story on a tree of these files."""
    world = World(log=MemoryEventLog())
    entries = {path: FileEntry("100644", await world.blobs.put(text.encode())) for path, text in files.items()}
    tree = await world.blobs.put(encode_tree(entries))
    log = StoryLog().add(created_payload(constraints=constraints), actor=PO)
    log.add(TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20))
    await log.write_to(world.log)
    return await world.bench(), tree


async def test_work_may_change_the_files_that_the_story_names_else_all_sources():
    bench, tree = await bench_of({"b.py": "", "a.py": "", "tests/test_a.py": "", "README.md": ""})
    assert await texts.source_paths(bench, tree) == ("a.py", "b.py")
    named, tree = await bench_of({"b.py": ""}, paths=["b.py"])
    assert await texts.source_paths(named, tree) == ("b.py",)


async def test_views_show_definitions_to_designers_and_whole_files_to_developers():
    bench, _ = await bench_of({"a.py": "def slug(text):\n    return text\n"})
    assert await texts.design_view(bench) == "Repository:\na.py\n  def slug(text):"
    shown = await texts.task_view(bench, ("a.py", "new.py"))
    assert "File a.py:\ndef slug(text):\n    return text\n" in shown
    assert "File new.py does not exist yet." in shown


LARGE = {f"part{n:02}.py": f"def step{n}(): ...\n" for n in range(40)} | {"zoo.py": "def save_user(name): ...\n"}


async def test_prompts_of_a_large_repository_show_the_files_that_the_story_is_about():
    bench, tree = await bench_of(LARGE)
    assert "zoo.py" not in await texts.source_paths(bench, tree), "the first ones by path"
    asked = [bench.state.content.title, *(c.text for c in bench.criteria)]
    about = LARGE | {"zoo.py": f"# {' '.join(asked)}\n"}
    knowing, tree = await bench_of(about)
    knowing = replace(knowing, knowledge=CodeKnowledge(knowing.blobs))
    chosen = await texts.source_paths(knowing, tree)
    assert chosen == (*[f"part{n:02}.py" for n in range(29)], "zoo.py")
    shown = await texts.design_view(knowing)
    assert "\nzoo.py" in shown
    assert "part29.py" not in shown


async def test_prompts_of_a_small_repository_are_the_same_with_and_without_knowledge():
    files = {"b.py": "def two(): ...\n", "a.py": "def one(): ...\n", "tests/test_a.py": ""}
    bench, tree = await bench_of(files)
    knowing = replace(bench, knowledge=CodeKnowledge(bench.blobs))
    assert await texts.source_paths(knowing, tree) == await texts.source_paths(bench, tree) == ("a.py", "b.py")
    assert await texts.design_view(knowing) == await texts.design_view(bench)


def test_examples_become_a_test_module_that_compiles():
    constraints = {
        "examples": {
            "import": "from a import slug",
            "cases": [{"call": "slug('A b')", "equals": "'a-b'"}, {"call": "slug('')", "equals": "''"}],
        }
    }
    code = texts.examples_module(constraints)
    compile(code, "examples.py", "exec")
    assert code.startswith("from a import slug\n")
    assert "    assert slug('A b') == 'a-b'" in code
    assert code.count("def test_example_") == 2


@pytest.mark.parametrize("constraints", [{}, {"examples": "none"}, {"examples": None}])
def test_story_without_examples_gives_no_module(constraints: dict[str, Any]):
    assert texts.examples_module(constraints) == ""


@pytest.mark.parametrize(
    ("files", "path"),
    [
        (["a.py"], "tests/test_write_slugify.py"),
        (["tests/unit/test_x.py", "tests/unit/test_y.py", "tests/test_z.py"], "tests/unit/test_write_slugify.py"),
        (["test_x.py"], "test_write_slugify.py"),
        (["tests/test_write_slugify.py"], "tests/test_write_slugify_2.py"),
    ],
)
async def test_new_tests_go_beside_those_that_are_there_and_replace_none(files: list[str], path: str):
    bench, tree = await bench_of(dict.fromkeys(files, ""))
    assert await texts.test_path(bench, tree, "Write: slugify!") == path


async def test_pack_that_was_shown_is_on_record_once():
    bench, _ = await bench_of({"a.py": ""})
    version = bench.state.version
    first = await texts.pack_text(bench, "developer", "DESIGN", None, as_of=version)
    again = await texts.pack_text(bench, "developer", "DESIGN", None, as_of=version)
    assert first == again
    assert bench.state.version == version + 1


class CountedPacks(texts.SittingPacks):
    """Counts what reaches it."""

    asked = 0

    async def pack(self, request: PackRequest) -> Pack:
        self.asked += 1
        return await super().pack(request)


async def test_pack_of_a_sitting_is_built_once_for_each_request():
    bench, _ = await bench_of({"a.py": ""})
    counted = CountedPacks(bench.packs)
    sitting = replace(bench, packs=texts.SittingPacks(counted))
    version = bench.state.version
    first = await texts.pack_text(sitting, "developer", "DESIGN", None, as_of=version)
    assert await texts.pack_text(sitting, "developer", "DESIGN", None, as_of=version) == first
    assert counted.asked == 1
    await texts.pack_text(sitting, "qa", "DESIGN", None, as_of=version)
    assert counted.asked == 2
    assert await texts.pack_text(bench, "developer", "DESIGN", None, as_of=version) == first
