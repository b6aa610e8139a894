"""The quick ways to write and check a tree give what the plain ones would, for hostile paths too."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.kernel.digest import canonical_json, digest_of
from fleet.kernel.errors import InvalidInput
from fleet.trees.tree import FileEntry, Mode, check_path, check_paths, decode_tree, encode_tree

PARTS = ["a", "b.py", "/", ".", "..", ".git", ".GiT", "x" * 1000]
SIGNS = ['"', "\\", "],[", '"],["', "\0", "\n", "\x7f", "é", "İ", "\u2028", "\ud800", "😀"]
TEXTS = st.lists(st.sampled_from(PARTS + SIGNS), max_size=6).map("".join) | st.text(max_size=9)
MODES: list[Mode] = ["100644", "100755", "120000", "160000"]
ENTRIES = st.builds(FileEntry, st.sampled_from(MODES), st.sampled_from("123").map(lambda n: digest_of(n.encode())))


def is_path(text: str) -> bool:
    try:
        return bool(check_path(text))
    except InvalidInput:
        return False


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=6))
@example(["a", "b\0c"])
@example([""])
@example(["a/.git"])
def test_paths_are_refused_together_exactly_when_one_of_them_is(paths: list[str]) -> None:
    wrong = [path for path in paths if not is_path(path)]
    if not wrong:
        check_paths(paths)
        return
    with pytest.raises(InvalidInput) as caught:
        check_paths(paths)
    assert caught.value.details["path"] == wrong[0][:200]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(TEXTS.filter(is_path), ENTRIES, max_size=8))
def test_tree_is_canonical_json_sorted_by_path_and_is_read_back(tree: dict[str, FileEntry]) -> None:
    data = encode_tree(tree)

    assert data == canonical_json([[path, *tree[path]] for path in sorted(tree)])
    assert decode_tree(data) == tree


GOOD = digest_of(b"1")


@pytest.mark.parametrize(
    "rows",
    [
        [["../a", "100644", GOOD]],
        [["\ud800", "100644", GOOD]],
        [["a", "100600", GOOD]],
        [["a", ["100644"], GOOD]],
        [["a", "100644", "sha256:0"]],
        [["a", "100644", 7]],
        [[7, "100644", GOOD]],
        [[["a"], "100644", GOOD]],
        [["a", "100644"]],
        {"a": 1},
        7,
    ],
)
def test_what_is_no_tree_is_refused(rows: object) -> None:
    with pytest.raises(InvalidInput):
        decode_tree(json.dumps(rows).encode())
