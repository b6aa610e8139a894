"""Answers over trees: what changed is read, what did not is not read again."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest

from fleet.kernel.errors import ArtifactNotFound, StoreUnavailable
from fleet.kernel.ids import Digest
from fleet.knowledge.facts import FileFacts
from fleet.knowledge.memory import MemoryFactStore
from fleet.knowledge.service import CodeKnowledge
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, Mode, encode_tree

SHOP = {
    "shop/cart.py": "class Cart:\n    def expire(self):\n        ...\n",
    "shop/money.py": "def round_price(price):\n    return price\n",
    "README.md": "# Shop\n\nCarts expire after an hour.\n",
    "logo.png": "expire",
}


class Blobs(MemoryBlobStore):
    """Counts what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = Counter[str]()

    async def get(self, digest: Digest) -> bytes:
        self.read[digest] += 1
        return await super().get(digest)

    async def tree(self, files: dict[str, str], *, mode: Mode = "100644") -> Digest:
        entries = {path: FileEntry(mode, await self.put(text.encode())) for path, text in files.items()}
        return await self.put(encode_tree(entries))


class Lost(MemoryFactStore):
    """A store that does not answer."""

    async def read(self, keys: object) -> dict[str, FileFacts]:
        raise StoreUnavailable("down")

    async def keep(self, facts: object) -> None:
        raise StoreUnavailable("down")


async def chosen(knowledge: CodeKnowledge, tree: Digest, task: str) -> list[str]:
    return [file.path for file in await knowledge.choose_files(tree, task)]


async def test_files_are_chosen_for_a_task() -> None:
    blobs = Blobs()
    tree = await blobs.tree(SHOP)
    assert await chosen(CodeKnowledge(blobs), tree, "carts expire too late") == ["shop/cart.py"]


async def test_search_cites_file_line_and_text_of_any_kind_of_file() -> None:
    blobs = Blobs()
    tree = await blobs.tree(SHOP)
    found = await CodeKnowledge(blobs).search(tree, "when do carts expire")
    cited = {answer.file.path: (answer.place.line, answer.place.text) for answer in found}
    assert cited["README.md"] == (3, "Carts expire after an hour.")
    assert cited["shop/cart.py"][0] == 1
    assert "logo.png" not in cited


async def test_file_that_only_its_path_speaks_for_is_cited_from_its_beginning() -> None:
    blobs = Blobs()
    tree = await blobs.tree(SHOP)
    (answer,) = await CodeKnowledge(blobs).search(tree, "logo")
    assert (answer.file.path, answer.place.line, answer.place.text) == ("logo.png", 1, "")


async def test_changed_file_alone_is_read_again() -> None:
    blobs = Blobs()
    knowledge = CodeKnowledge(blobs)
    await chosen(knowledge, await blobs.tree(SHOP), "price")
    blobs.read.clear()
    changed = {**SHOP, "shop/money.py": "def zebra(): ...\n"}
    del changed["README.md"]
    tree = await blobs.tree(changed)
    assert await chosen(knowledge, tree, "zebra") == ["shop/money.py"]
    assert blobs.read.total() == 2, "the tree and the changed file"
    assert await knowledge.search(tree, "hour") == []
    assert await chosen(knowledge, await blobs.tree(SHOP), "zebra") == [], "back again"


async def test_change_of_a_large_tree_is_followed_as_if_it_were_read_anew() -> None:
    blobs = Blobs()
    knowledge = CodeKnowledge(blobs)
    files = {f"src/part{n:02d}.py": f"def part{n}(): ...\n" for n in range(40)}
    await chosen(knowledge, await blobs.tree(files), "part")
    steps: list[dict[str, str | None]] = [
        {"src/part07.py": "def zebra(): ...\n"},
        {"src/part00.py": None},
        {"src/part395.py": "def zebra_two(): ...\n", "src/part38.py": None},
        {"a.py": "def zebra_three(): ...\n"},
        {"a.py": "def other(): ...\n", "src/part01.py": "def zebra(): ...\n"},
    ]
    for step in steps:
        files = {path: text for path, text in {**files, **step}.items() if text is not None}
        tree = await blobs.tree(files)
        for task in ("zebra", "zebra_two", "zebra_three", "part7", "part0", "part38", "other"):
            assert await chosen(knowledge, tree, task) == await chosen(CodeKnowledge(blobs), tree, task), (step, task)


async def test_what_another_process_kept_is_not_read_again() -> None:
    blobs, store = Blobs(), MemoryFactStore()
    tree = await blobs.tree(SHOP)
    first = await chosen(CodeKnowledge(blobs, store), tree, "expire")
    blobs.read.clear()
    assert await chosen(CodeKnowledge(blobs, store), tree, "expire") == first
    assert blobs.read.total() == 1, "the tree"


async def test_store_that_does_not_answer_costs_time_alone() -> None:
    blobs = Blobs()
    assert await chosen(CodeKnowledge(blobs, Lost()), await blobs.tree(SHOP), "expire") == ["shop/cart.py"]


async def test_links_and_submodules_are_not_followed() -> None:
    blobs = Blobs()
    tree = await blobs.tree({"a.py": "../../secret"}, mode="120000")
    blobs.read.clear()
    assert await chosen(CodeKnowledge(blobs), tree, "secret a.py") == []
    assert blobs.read.total() == 1


async def test_too_large_a_tree_keeps_its_sources() -> None:
    blobs = Blobs()
    tree = await blobs.tree({**{f"doc{n}.md": "expire" for n in range(9)}, "tests/test_a.py": "", **SHOP})
    found = await CodeKnowledge(blobs, max_files=3).search(tree, "expire shop test")
    assert {answer.file.path for answer in found} == {"shop/cart.py", "shop/money.py", "tests/test_a.py"}


async def test_racing_questions_about_other_trees_get_their_own_answers() -> None:
    blobs = Blobs()
    knowledge = CodeKnowledge(blobs)
    names = ("zebra", "lion", "tiger", "otter", "badger", "lynx")
    trees = [await blobs.tree({**SHOP, "shop/odd.py": f"def {name}(): ...\n"}) for name in names]
    asked = list(zip(trees, names, strict=True)) * 2
    found = await asyncio.gather(*(chosen(knowledge, tree, task) for tree, task in asked))
    assert found == [["shop/odd.py"]] * 12
    assert await chosen(knowledge, trees[0], "lynx") == []


async def test_missing_file_is_an_error_and_the_next_question_is_answered() -> None:
    blobs = Blobs()
    knowledge = CodeKnowledge(blobs)
    await chosen(knowledge, await blobs.tree(SHOP), "expire")
    gone = Digest("sha256:" + "0" * 64)
    broken = await blobs.put(encode_tree({"a.py": FileEntry("100644", gone)}))
    with pytest.raises(ArtifactNotFound):
        await chosen(knowledge, broken, "expire")
    assert await chosen(knowledge, await blobs.tree(SHOP), "expire") == ["shop/cart.py"]


async def test_call_that_was_cut_short_leaves_what_it_read_to_the_next() -> None:
    blobs = Blobs()
    files = {f"a{n}.py": f"def f{n}(): ...\n" for n in range(250)}
    tree = await blobs.tree(files)
    hang = asyncio.Event()
    last = await blobs.put(files["a99.py"].encode())

    class Slow(Blobs):
        async def get(self, digest: Digest) -> bytes:
            if digest == last and not hang.is_set():
                hang.set()
                await asyncio.Event().wait()
            self.read[digest] += 1
            return await blobs.get(digest)

    slow = Slow()
    knowledge = CodeKnowledge(slow)
    call = asyncio.create_task(chosen(knowledge, tree, "f7"))
    await hang.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await chosen(knowledge, tree, "f7 a7") == ["a7.py"]
    assert sum(1 for n in slow.read.values() if n == 1) >= 200, "the first batch was not read twice"


@pytest.mark.parametrize("is_on", [True, False])
async def test_collection_of_garbage_is_as_it_was_before(is_on: bool) -> None:
    blobs = Blobs()
    tree = await blobs.tree(SHOP)
    was_on = gc.isenabled()
    try:
        (gc.enable if is_on else gc.disable)()
        assert await chosen(CodeKnowledge(blobs), tree, "expire") == ["shop/cart.py"]
        assert gc.isenabled() is is_on
    finally:
        (gc.enable if was_on else gc.disable)()
