"""What differs between trees, by path and by line."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.digest import digest_of
from fleet.trees.tree import FileEntry, changed_lines, changed_paths

A, B = digest_of(b"a"), digest_of(b"b")


def test_changed_paths_names_each_kind_of_change_in_order() -> None:
    old = {"same": FileEntry("100644", A), "gone": FileEntry("100644", A), "mode": FileEntry("100644", A)}
    new = {"same": FileEntry("100644", A), "mode": FileEntry("100755", A), "new": FileEntry("100644", B)}
    found = [(change.path, change.change) for change in changed_paths(old, new)]
    assert found == [("gone", "removed"), ("mode", "modified"), ("new", "added")]


@pytest.mark.parametrize(
    ("old", "new", "added", "removed"),
    [
        ("", "", (), 0),
        ("", "a\nb\n", (1, 2), 0),
        ("a\n", "", (), 1),
        ("a\nb\nc\n", "a\nx\nc\n", (2,), 1),
        ("a\nb\n", "a\nb\nc", (3,), 0),
        ("a\r\nb\r\n", "a\nb\n", (), 0),
        ("a\x0cb\n", "a\x0cb\nc\n", (2,), 0),
    ],
)
def test_changed_lines_counts_as_a_compiler_does(old: str, new: str, added: tuple[int, ...], removed: int) -> None:
    assert changed_lines(old, new) == (added, removed)


LINES = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12)


@settings(max_examples=100, deadline=None)
@given(old=LINES, new=LINES)
def test_changed_lines_leave_a_common_rest(old: list[str], new: list[str]) -> None:
    added, removed = changed_lines("\n".join(old) + "\n" * bool(old), "\n".join(new) + "\n" * bool(new))
    rest = [line for number, line in enumerate(new, 1) if number not in added]
    assert len(rest) == len(old) - removed
    blocks = difflib.SequenceMatcher(None, rest, old, autojunk=False)
    iterator = iter(old)
    assert all(line in iterator for line in rest), blocks
