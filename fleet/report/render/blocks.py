"""What a report is made of before it is Markdown or HTML: sections of paragraphs, lists, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ref:
    """An id or digest that leads to its resource of the API (RP-41)."""

    text: str
    href: str


Cell = str | Ref | tuple[Ref, ...]
"""Plain text, or one or more links."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Plain text; line breaks stay."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list."""

    items: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as long as `head`."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Inline SVG with every text in it escaped; left out where there is nothing to draw on."""

    svg: str


Block = Paragraph | Bullets | Table | Picture


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A report ready to be rendered."""

    title: str
    sections: tuple[Section, ...]


def duration_text(ms: int) -> str:
    """Milliseconds as people read them: `240 ms`, `3.4 s`, `2 min 5 s`, `1 h 4 min`."""
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms // 1000}.{ms % 1000 // 100} s"
    minutes, seconds = divmod(ms // 1000, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"
