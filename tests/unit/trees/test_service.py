"""Views of trees for prompts: text only, cut with a note, in order of path."""

from __future__ import annotations

import pytest

from fleet.kernel.ids import Digest
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.service import (
    criteria_in_names,
    file_text,
    is_test,
    keep_tests,
    merge_modules,
    named_criteria,
    outline,
    read_changes,
    read_tree,
    unified_diff,
)
from fleet.trees.tree import FileEntry, encode_tree

CODE = "import re\n\n\ndef slug(text):\n    return text\n\n\nclass Folder:\n    def inner(self): ...\n"


async def tree(blobs: MemoryBlobStore, files: dict[str, bytes], *, mode: str = "100644") -> Digest:
    entries = {path: FileEntry(mode, await blobs.put(data)) for path, data in files.items()}  # pyright: ignore[reportArgumentType]
    return await blobs.put(encode_tree(entries))


async def test_text_of_a_file_is_cut_with_a_note():
    blobs = MemoryBlobStore()
    found = await read_tree(blobs, await tree(blobs, {"a.py": b"x" * 50, "b.bin": b"\xff\xfe"}))
    assert await file_text(blobs, found, "a.py") == "x" * 50
    cut = await file_text(blobs, found, "a.py", limit=10)
    assert cut is not None
    assert cut.startswith("x" * 10 + "\n# [")
    assert await file_text(blobs, found, "b.bin") is None
    assert await file_text(blobs, found, "none.py") is None


async def test_link_is_no_text():
    blobs = MemoryBlobStore()
    found = await read_tree(blobs, await tree(blobs, {"a.py": b"/etc/passwd"}, mode="120000"))
    assert await file_text(blobs, found, "a.py") is None


async def test_outline_lists_sources_with_their_definitions_and_no_tests():
    blobs = MemoryBlobStore()
    found = await read_tree(
        blobs, await tree(blobs, {"b.py": CODE.encode(), "a.py": b"", "tests/test_b.py": b"def test(): ..."})
    )
    text = await outline(blobs, found)
    assert text.splitlines()[0] == "a.py"
    assert "  def slug(text):" in text
    assert "class Folder:" in text
    assert "inner" not in text
    assert "test_b" not in text


def test_test_files_are_known_by_convention():
    assert all(is_test(p) for p in ("test_a.py", "pkg/a_test.py", "conftest.py", "tests/data.py", "pkg/tests/x.py"))
    assert not any(is_test(p) for p in ("a.py", "contest.py", "latest/a.py"))


async def test_diff_shows_changed_added_and_removed_files_in_order():
    blobs = MemoryBlobStore()
    old = await tree(blobs, {"a.py": b"one\ntwo\n", "gone.py": b"x\n", "same.py": b"y\n"})
    new = await tree(blobs, {"a.py": b"one\n2\n", "new.py": b"z\n", "same.py": b"y\n"})
    text = await unified_diff(blobs, old, new)
    assert [line[6:] for line in text.splitlines() if line.startswith("+++ b/")] == ["a.py", "gone.py", "new.py"]
    assert "-two" in text
    assert "+2" in text
    assert "same.py" not in text
    only = await unified_diff(blobs, old, new, paths=["new.py"])
    assert "gone.py" not in only


TESTS = """import pytest

from a import slug


def helper():
    return 1


@pytest.mark.parametrize("x", [1])
def test_one(x):
    assert slug(x)


def test_two():
    assert helper() == (
        1
)
"""


def test_dropped_tests_leave_with_their_decorators_and_the_rest_stays():
    kept = keep_tests(TESTS, frozenset({"test_two"}))
    assert "test_one" not in kept
    assert "parametrize" not in kept
    assert kept.startswith("import pytest\n")
    compile(kept, "kept.py", "exec")
    both = keep_tests(TESTS, frozenset({"test_one", "test_two"}))
    assert both == TESTS


def test_decorator_over_several_lines_goes_or_stays_with_its_test():
    code = "@mark(\n    [1, 2],\n)\n@other\ndef test_one(x):\n    pass\n\n\ndef test_two():\n    pass\n"
    assert keep_tests(code, frozenset({"test_two"})) == "def test_two():\n    pass\n"
    assert keep_tests(code, frozenset({"test_one", "test_two"})) == code


def test_merged_modules_import_each_name_once_and_first():
    merged = merge_modules(["import a\n\nx = 1\n", "", "import a\nfrom b import c\n\ny = 2\n"])
    assert merged == "import a\nfrom b import c\n\n\nx = 1\n\n\ny = 2\n"
    assert merge_modules(["import a\n", ""]) == ""


def test_no_test_kept_leaves_imports_and_helpers():
    assert "def helper" in keep_tests(TESTS, frozenset())
    assert "test_" not in keep_tests(TESTS, frozenset())


async def test_changes_are_the_entries_that_the_other_tree_has_not() -> None:
    blobs = MemoryBlobStore()
    same = {f"m{n}.py": b"x" for n in range(50)}
    old = await tree(blobs, {**same, "m7.py": b"old", "gone.py": b"y"})
    new = await tree(blobs, {**same, "m30.py": b"new", "come.py": b"z"})

    before, after = await read_changes(blobs, old, new)

    assert (set(before), set(after)) == ({"m7.py", "m30.py", "gone.py"}, {"m7.py", "m30.py", "come.py"})
    assert await read_changes(blobs, old, old) == ({}, {})


@pytest.mark.rule("RG-47")
@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("def test_slugify_ac1(): ...", {"test_slugify_ac1": ("ac-1",)}),
        ("def test_AC_1_and_ac_10(): ...", {"test_AC_1_and_ac_10": ("ac-1", "ac-10")}),
        ('async def test_x():\n    """ac 10: many blanks."""', {"test_x": ("ac-10",)}),
        ('@mark.criterion("ac-1")\ndef test_y(): ...', {"test_y": ("ac-1",)}),
        ("def test_ac_11(): ...\ndef test_back1(): ...\ndef test_mac_1(): ...", {}),
        ('def helper_ac_1(): ...\n# ac-1\ndef test_z():\n    assert "ac-1"', {}),
        ("def test_ac_1(:", {}),
        ("(" * 5000, {}),
    ],
)
def test_test_names_a_criterion_by_its_name_its_docstring_or_a_decorator(code: str, named: dict[str, tuple[str, ...]]):
    assert named_criteria(code, ["ac-1", "ac-10"]) == named


@pytest.mark.rule("RG-47")
def test_test_of_another_language_names_a_criterion_by_its_name_alone() -> None:
    names = ["Test_ac_1_adds", "TestAC1Adds", "TestAc10", "ac-1 adds", "ac_10_is_ac_1", "TestMac1", "TestAC11", "adds"]
    assert criteria_in_names(names, ["ac-1", "ac-10"]) == {
        "Test_ac_1_adds": ("ac-1",),
        "TestAC1Adds": ("ac-1",),
        "TestAc10": ("ac-10",),
        "ac-1 adds": ("ac-1",),
        "ac_10_is_ac_1": ("ac-1", "ac-10"),
    }
