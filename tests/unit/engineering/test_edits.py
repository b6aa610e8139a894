"""Replacements in a text: exact or told, all or none, refused with what to send instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.engineering.edits import Edited, Refused, Replacement, edit_text

CODE = "def one():\n    return 1\n\n\ndef two():\n    if True:\n        return 2\n"
LINES = st.text(alphabet="ab \t\u201c", max_size=6)
TEXTS = st.lists(LINES, min_size=1, max_size=12).map("\n".join)


def edited(text: str, *edits: Replacement) -> Edited:
    found = edit_text(text, edits, path="a.py")
    assert isinstance(found, Edited), found
    return found


def refused(text: str, *edits: Replacement) -> str:
    found = edit_text(text, edits, path="a.py")
    assert isinstance(found, Refused)
    assert found.message.endswith("Nothing was changed.")
    return found.message


def test_exact_text_is_replaced_and_shown_with_its_surroundings():
    found = edited(CODE, Replacement("return 1", "return 10"))
    assert found.text == CODE.replace("return 1", "return 10")
    assert found.notes == ()
    assert "     2      return 10" in found.shown
    assert "return 2" not in found.shown


@given(TEXTS, TEXTS)
def test_text_that_is_there_once_is_replaced_by_exactly_the_new_one(text: str, new: str):
    whole = f"before\n<{text}>\nafter\n"
    old = f"<{text}>"
    if new == old:
        return
    assert edited(whole, Replacement(old, new)).text == whole.replace(old, new)


@given(TEXTS, st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_edits_are_made_in_order_or_not_at_all(text: str, edits: list[tuple[str, str]]):
    steps = [Replacement(old, new) for old, new in edits]
    whole = edit_text(text, steps, path="a.py")
    one_by_one: str | None = text
    for step in steps:
        single = edit_text(one_by_one, [step], path="a.py")
        if isinstance(single, Refused):
            one_by_one = None
            break
        one_by_one = single.text
    if one_by_one is None or one_by_one == text:
        assert isinstance(whole, Refused)
    else:
        assert isinstance(whole, Edited)
        assert whole.text == one_by_one


@given(TEXTS, st.text(max_size=40), st.text(max_size=40))
def test_any_edit_of_any_text_is_made_or_refused(text: str, old: str, new: str):
    found = edit_text(text, [Replacement(old, new)], path="a.py")
    assert isinstance(found, Refused) or found.text != text


@given(
    st.lists(st.sampled_from(["a = 1", "  b = 2", "c()", ""]), min_size=1, max_size=8), st.sampled_from(["    ", "\t"])
)
def test_indentation_that_is_off_by_the_same_everywhere_is_mended_and_said(lines: list[str], shift: str):
    lines = ["first()", *lines, "last()"]
    file = "\n".join(["start", *(shift + line if line else line for line in lines), "end"])
    new = "x = 1\n  y = 2"
    found = edited(file, Replacement("\n".join(lines), new))
    assert found.text == "\n".join(["start", f"{shift}x = 1", f"{shift}  y = 2", "end"])
    assert found.notes == ("line 2: matched apart from indentation",)


def test_trailing_blanks_and_typographic_quotes_are_told():
    found = edited("a = 'x'  \nb = 2\n", Replacement("a = \u2018x\u2019\nb = 2\n", "a = 'y'\n"))
    assert found.text == "a = 'y'\n"
    assert found.notes == ("line 1: matched apart from typographic quotes",)
    assert edited("a = 1  \nb\n", Replacement("a = 1\nb", "c")).notes == ("line 1: matched apart from trailing blanks",)


def test_line_ends_of_the_file_stay():
    found = edited("a\r\nb\r\nc\r\n", Replacement("a\nb", "a\nx"))
    assert found.text == "a\r\nx\r\nc\r\n"
    assert found.notes == ()


def test_what_is_there_several_times_needs_more_or_all():
    assert "is in a.py 2 times (lines 1, 3): add lines around it" in refused("x\ny\nx\n", Replacement("x", "z"))
    assert edited("x\ny\nx\n", Replacement("x", "z", is_all=True)).text == "z\ny\nz\n"
    assert "2 times apart from white space" in refused("  x\n    y\n x\n   y\n", Replacement("x\n  y", "z"))


def test_what_is_not_there_shows_the_closest_lines_and_the_first_difference():
    told = refused(CODE, Replacement("def two():\n    if False:\n        return 2", "pass"))
    assert "Closest are lines 5-7" in told
    assert "First difference, line 6:\n  file:  '    if True:'\n  yours: '    if False:'" in told
    assert "no line of it is" in refused(CODE, Replacement("nothing like it {x}", "y"))


def test_what_is_done_already_and_what_does_nothing_is_said():
    new = "    return 1\n\n\ndef two():"
    assert "is in a.py already (line 2)" in refused(CODE, Replacement("    return 11", new))
    assert "are the same" in refused(CODE, Replacement("one", "one"))
    assert "is empty: to make a file" in refused(CODE, Replacement("", "x"))


def test_one_refused_edit_of_several_is_named_and_nothing_is_changed():
    told = refused(CODE, Replacement("return 1", "return 3"), Replacement("return 9", "return 4"))
    assert told.startswith("edit 2 of 2: ")


def test_edit_that_is_taken_back_by_the_next_changes_nothing():
    assert "leave a.py as it is" in refused("ab", Replacement("a", "c"), Replacement("c", "a"))


@pytest.mark.parametrize("text", ["", "\n", "x" * 100_000, "x\n" * 20_000])
def test_sizes_and_empty_texts_are_no_problem(text: str):
    assert refused(text, Replacement("y\ny\ny", "z"))
