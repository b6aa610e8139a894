"""Unified diffs are applied as a whole, or they say which hunk of which file is wrong and what to send instead."""

from __future__ import annotations

import difflib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.engineering.edits import Refused
from fleet.engineering.patches import FilePatch, Patched, apply_patch, parse_patch

TEXT = "one\ntwo\nthree\nfour\nfive\n"


def parsed(text: str) -> list[FilePatch]:
    files = parse_patch(text)
    assert not isinstance(files, Refused), files.message
    return files


def patched(text: str, patch: str) -> str:
    made = apply_patch({"a.txt": text}, parsed(f"--- a/a.txt\n+++ b/a.txt\n{patch}"))
    assert not isinstance(made, Refused), made.message
    one = made["a.txt"]
    assert one is not None
    return one.text


def refusal(text: str, patch: str) -> str:
    files = parse_patch(f"--- a/a.txt\n+++ b/a.txt\n{patch}")
    made = files if isinstance(files, Refused) else apply_patch({"a.txt": text}, files)
    assert isinstance(made, Refused)
    return made.message


@pytest.mark.parametrize("header", ["@@ -2,3 +2,3 @@", "@@ -900,7 +1,2 @@ def f():", "@@", "@@ ... @@"])
def test_wrong_line_numbers_and_counts_do_not_matter_where_the_lines_stand_once(header: str):
    assert patched(TEXT, f"{header}\n two\n-three\n+3\n four\n") == "one\ntwo\n3\nfour\nfive\n"


def test_the_number_says_which_of_equal_places_is_meant():
    text = "a\nx\nb\nx\nc\nx\n"
    assert patched(text, "@@ -4 +4 @@\n-x\n+y\n") == "a\nx\nb\ny\nc\nx\n"
    told = refusal(text, "@@ -3 +3 @@\n-x\n+y\n")
    assert told.startswith("hunk 1 of 1 of a.txt: its old lines stand there 3 times (lines 2, 4, 6) and line 3 is none")
    assert "add lines around them" in told


def test_the_order_of_the_hunks_says_which_of_equal_places_is_meant():
    assert patched("a\nx\nb\nx\n", "@@ -1,2 +1,2 @@\n-a\n+A\n x\n@@ -9 +9 @@\n-x\n+y\n") == "A\nx\nb\ny\n"


def test_hunks_out_of_order_are_refused():
    assert "before the end of the hunk before it" in refusal(TEXT, "@@\n-four\n+4\n@@\n-one\n+1\n")


def test_what_is_not_there_is_told_with_what_stands_there():
    told = refusal(TEXT, "@@ -1,2 +1,2 @@\n-one\n+1\n@@ -3,2 +3,2 @@\n three\n-vier\n+4\n")
    assert told.startswith(
        "hunk 2 of 2 of a.txt: its old lines are not there. Nothing was changed. Closest are lines 3-4:"
    )
    assert "     4  four\n" in told
    assert "yours: 'vier'" in told
    assert "Copy the lines from the file" in told
    assert "none of its old lines is in a.txt" in refusal(TEXT, "@@\n-nothing\n+like it\n")
    assert "its new lines stand at line 3 already" in refusal(TEXT, "@@\n-drei\n+three\n")


def test_blanks_at_ends_of_lines_match_and_are_kept():
    assert patched("a  \nb\nc\n", "@@\n a\n-b\n+B\n") == "a  \nB\nc\n"


def test_a_blank_line_without_its_sign_is_a_line():
    assert patched("a\n\nb\n", "@@\n a\n\n-b\n+B\n") == "a\n\nB\n"


def test_line_ends_of_the_file_stay():
    assert patched("a\r\nb\r\n", "@@\n-b\n+B\n+C\n") == "a\r\nB\r\nC\r\n"


def test_removed_lines_that_look_like_a_header():
    assert patched("a\n-- x\n++ y\nb\n", "@@\n a\n--- x\n-++ y\n b\n") == "a\nb\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "this is no unified diff"),
        ("please change a to b", "this is no unified diff"),
        ("@@ -1 +1 @@\n-a\n+b\n", "a hunk before any file"),
        ("--- a/x\n+++ b/x\n@@\n a\n*b\n", "begins with none of blank"),
        ("--- a/x\n+++ b/x\n@@\n a\n", "changes nothing"),
        ("--- a/x\n+++ b/x\n@@\n-a\n+b\n--- a/x\n+++ b/x\n@@\n-c\n+d\n", "names x more than once"),
        ("--- a/x\n+++ b/x\n-a\n+b\n", "no hunk for x"),
        ("".join(f"--- a/{n}\n+++ b/{n}\n@@\n-a\n+b\n" for n in range(51)), "at most 50"),
    ],
)
def test_what_is_no_patch_says_so(text: str, says: str):
    files = parse_patch(text)
    assert isinstance(files, Refused)
    assert says in files.message


def test_files_are_made_removed_and_renamed():
    patch = (
        "diff --git a/new.sh b/new.sh\nnew file mode 100755\n--- /dev/null\n+++ b/new.sh\n@@ -0,0 +1,2 @@\n+a\n+b\n"
        "diff --git a/gone.txt b/gone.txt\ndeleted file mode 100644\n--- a/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"
        "diff --git a/was.txt b/is.txt\nsimilarity index 100%\nrename from was.txt\nrename to is.txt\n"
    )
    files = parsed(patch)
    assert [(one.old, one.new, one.mode) for one in files] == [
        (None, "new.sh", "100755"),
        ("gone.txt", None, ""),
        ("was.txt", "is.txt", ""),
    ]
    made = apply_patch({"gone.txt": "x\n", "was.txt": "same\n"}, files)
    assert made == {
        "new.sh": Patched("a\nb\n", ()),
        "gone.txt": None,
        "was.txt": None,
        "is.txt": Patched("same\n", ()),
    }


def test_a_file_is_not_deleted_with_lines_that_the_patch_does_not_show():
    made = apply_patch({"a": "x\ny\n"}, parsed("--- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n"))
    assert isinstance(made, Refused)
    assert "leaves 1 lines of it" in made.message


_TEXTS = st.lists(st.sampled_from(["a", "b", "c", "", "  d", "-- e", "++ f", "@@ g", "\\ h"]), max_size=25).map(
    "\n".join
)


@given(_TEXTS, _TEXTS)
@settings(max_examples=300, deadline=None)
def test_a_patch_of_diff_gives_the_new_text(old: str, new: str):
    old, new = f"{old}\n", f"{new}\n"
    rows = [*difflib.unified_diff(old.splitlines(True), new.splitlines(True), "a/a.txt", "b/a.txt")]
    if rows:
        made = apply_patch({"a.txt": old}, parsed("".join(rows)))
        assert not isinstance(made, Refused), made.message
        assert made["a.txt"] is not None
        assert made["a.txt"].text == new


@pytest.mark.parametrize(
    ("old", "new"),
    [("a\nb", "a\nb\n"), ("a\nb\n", "a\nb"), ("a\nb", "a\nc"), ("a\nb", "b"), ("", "a"), ("a\n", "b\na")],
)
def test_a_patch_of_git_gives_the_new_text(tmp_path: Path, old: str, new: str):
    (tmp_path / "old").write_text(old)
    (tmp_path / "new").write_text(new)
    command = ["git", "diff", "--no-index", "--", "old", "new"]
    diff = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    made = apply_patch({"old": old}, parsed(diff.replace("b/new", "b/old")))
    assert made == {"old": Patched(new, ())}
