"""The lines that answer, and notes by the words they share with the question."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.knowledge.cite import Note, cite, rank_notes
from fleet.knowledge.facts import Definition
from fleet.knowledge.rank import ask

TEXT = "import os\n\n\n\n\n\n\n\ndef add(item):\n    reserve = True\n\n    expires = 3\n    return reserve\n"
SYMBOLS = (Definition("function", "add", 9, 14),)


def flat(_: str) -> float:
    return 1.0


def test_citation_is_where_most_different_terms_stand_together() -> None:
    found = cite(TEXT, SYMBOLS, ask("when does a reserve expire"), flat)
    assert (found.line, found.end, found.symbol) == (10, 12, "add")
    assert found.text == "    reserve = True\n\n    expires = 3"


def test_term_that_was_left_behind_does_not_count_for_a_later_place() -> None:
    text = "reserve\nreserve\nexpire\n" + "\n" * 20 + "reserve\nhour\nexpire\n"
    found = cite(text, (), ask("reserve expire hour"), flat)
    assert (found.line, found.end) == (24, 26)


def test_text_that_holds_no_term_is_cited_from_its_beginning() -> None:
    found = cite(TEXT, SYMBOLS, ask("zebra"), flat)
    assert (found.line, found.end, found.symbol, found.text) == (1, 1, "", "import os")


def test_long_line_is_cut() -> None:
    assert len(cite("word " * 1000, (), ask("word"), flat).text) <= 400


@settings(max_examples=50)
@given(st.text(alphabet="ab \n\r", max_size=200))
def test_citation_lies_in_the_text(text: str) -> None:
    found = cite(text, (), ask("aa bb ab ba"), flat)
    assert 1 <= found.line <= found.end <= text.count("\n") + 1


def test_notes_are_ranked_by_telling_words() -> None:
    notes = [
        Note("de-1", "Keep carts in Redis because they expire"),
        Note("de-2", "Keep carts in files"),
        Note("de-3", "Prices are integers"),
    ]
    assert [row.note.ref for row in rank_notes(notes, ask("which carts expire"), limit=5)] == ["de-1", "de-2"]
    assert [row.note.ref for row in rank_notes(notes, ask("which carts expire"), limit=1)] == ["de-1"]
    assert rank_notes(notes, ask("zebra"), limit=5) == []
    assert rank_notes([], ask("carts"), limit=5) == []
