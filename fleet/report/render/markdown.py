"""A report as Markdown. Text from the story can neither end a table nor open a heading, a link or an element."""

from __future__ import annotations

import re

from fleet.report.model import TechnicalReport
from fleet.report.render.blocks import Block, Bullets, Cell, Document, Paragraph, Picture, Ref, Table
from fleet.report.render.document import document_of

_SPECIAL = re.compile(r"[\\`*\[\]<>|]|(?<!\w)_|_(?!\w)")
_LINE_START = re.compile(r"^(\d+)([.)])|^([#+=~-])")


def render_markdown(report: TechnicalReport) -> str:
    """The report as Markdown with tables; pictures are left out. Same report, same text."""
    return _document(document_of(report))


def _document(document: Document) -> str:
    parts = [f"# {_line(document.title)}"]
    for section in document.sections:
        blocks = (_block(block) for block in section.blocks)
        parts += [f"## {section.title}", *(text for text in blocks if text)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            lines = [_line(line.strip()) for line in block.text.strip().splitlines()]
            return "\n".join(f"{line}  " if line else "" for line in lines).rstrip()
        case Bullets():
            return "\n".join(f"- {_cell(item)}" for item in block.items)
        case Table():
            head = f"| {' | '.join(block.head)} |\n|{' --- |' * len(block.head)}"
            return "\n".join([head, *(f"| {' | '.join(_cell(c) for c in row)} |" for row in block.rows)])
        case Picture():
            return ""


def _line(text: str) -> str:
    escaped = _escape(text)
    return _LINE_START.sub(lambda m: f"{m[1]}\\{m[2]}" if m[1] else f"\\{m[3]}", escaped)


def _cell(cell: Cell) -> str:
    match cell:
        case Ref():
            return f"[{_escape(cell.text)}]({cell.href})"
        case str():
            return _escape(" ".join(cell.split())) or "-"
        case _:
            return ", ".join(_cell(ref) for ref in cell)


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda m: f"\\{m[0]}", text)
