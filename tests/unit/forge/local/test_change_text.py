"""Any text becomes a title, a body and a description that every forge takes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.extensions.forges.gitlab import GitLabApi
from fleet.forge.local.change_text import MAX_TEXT, MAX_TITLE, checked, one_line
from fleet.forge.port import ChangeRequest
from fleet.kernel.errors import InvalidInput

TEXT = st.text(st.characters(), max_size=300)


@settings(max_examples=60, deadline=None)
@given(title=TEXT, body=TEXT, verdict=TEXT)
def test_any_text_becomes_a_change_that_every_forge_takes(title: str, body: str, verdict: str) -> None:
    change = ChangeRequest("team/app", "main", "fleet/st-1", f"x{title}", body, verdict=verdict)

    wanted = checked(change)

    assert 1 <= len(wanted.title) <= MAX_TITLE
    assert len(wanted.text) <= MAX_TEXT
    assert wanted.title.splitlines() == [wanted.title]
    assert not [c for c in wanted.text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t"]
    wanted.text.encode()


@settings(max_examples=60, deadline=None)
@given(label=TEXT)
def test_any_label_is_taken_as_it_is_or_refused(label: str) -> None:
    try:
        wanted = checked(ChangeRequest("team/app", "main", "fleet/st-1", "t", "b", labels=(label, label)))
    except InvalidInput:
        return
    assert wanted.labels == (label,)
    assert "," not in label


@pytest.mark.parametrize("text", ["/merge", "a\n/approve x", "\n  /label ~x", "```\n/close\n```"])
def test_no_line_starts_with_a_command_of_gitlab(text: str) -> None:
    wanted = checked(ChangeRequest("team/app", "main", "fleet/st-1", "t", text))

    _, shown = GitLabApi(None).shown(wanted)  # type: ignore[arg-type]

    assert [line for line in shown.splitlines() if line.lstrip().startswith("/")] == []
    assert shown.replace("\\/", "/") == wanted.text


def test_one_line_cuts_with_a_mark() -> None:
    assert one_line("a  b\n\tc", 140) == "a b c"
    assert one_line("x" * 20, 10) == "x" * 9 + "…"
