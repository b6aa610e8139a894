"""What people and models wrote is shown as they wrote it, and never as markup or as control of the terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fleet.cli.output import shown, shown_name


def printed(text: str) -> str:
    """What a console prints for a line that holds this text."""
    output = io.StringIO()
    Console(file=output, soft_wrap=True, highlight=False, color_system=None).print(f"[bold]{shown(text)}[/] end")
    return output.getvalue()


@pytest.mark.parametrize(
    "title", ["a path[/tmp]", "[/]", "[/x]", "[bold red]x[/bold red]", "list[int]", "[click me]", "a \\[b]", "end\\"]
)
def test_title_that_looks_like_markup_is_printed_as_it_is(title: str) -> None:
    assert printed(title) == f"{title} end\n"


@pytest.mark.parametrize(
    ("title", "visible"),
    [("\x1b[2J", "\\x1b[2J"), ("\x1b]0;t\x07", "\\x1b]0;t\\x07"), ("a\rb", "a\\rb"), ("\u202eb", "\\u202eb")],
)
def test_character_that_controls_the_terminal_is_made_visible(title: str, visible: str) -> None:
    assert printed(title) == f"{visible} end\n"


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("[]/\\\x1b\r"))))
def test_any_text_can_be_printed(title: str) -> None:
    assert printed(title).endswith(" end\n")


def test_name_in_a_line_forges_no_line_and_no_control():
    told = shown_name("a\nleft alone b\r\x1b[2J\u202e\x9b[bold]")
    assert told == "a\\nleft alone b\\r\\x1b[2J\\u202e\\x9b\\[bold]"
