"""A report as one HTML page: no script, no request to anywhere, every text escaped, light and dark."""

from __future__ import annotations

from html import escape

from fleet.report.model import TechnicalReport
from fleet.report.render.blocks import Block, Bullets, Cell, Document, Paragraph, Picture, Ref, Table
from fleet.report.render.document import document_of

_STYLE = """
:root { --text: #1c2128; --soft: #57606a; --page: #ffffff; --line: #d0d7de; --shade: #f3f5f7; --link: #0757b8;
  --bar: #6b8fb5; --yes: #2f855a; --no: #c0392b; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --text: #e6eaef; --soft: #9aa5b1; --page: #14181d; --line: #333b45;
  --shade: #1d232a; --link: #7db3f5; --bar: #5c7fa6; --yes: #48a877; --no: #e06c5c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
nav { font-size: .9rem; line-height: 1.9; } nav a { margin-right: .9rem; white-space: nowrap; }
a { color: var(--link); text-underline-offset: .15em; }
p { white-space: pre-line; max-width: 46rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .75rem 0 1.25rem; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; min-width: 4.5rem; }
thead th { background: var(--shade); white-space: nowrap; } tbody th { font-weight: 600; width: 12rem; }
svg { display: block; width: 100%; max-width: 44rem; height: auto; margin: 1rem 0; font: 12px system-ui, sans-serif; }
svg text { fill: var(--text); } .bar { fill: var(--bar); } .yes { fill: var(--yes); } .no { fill: var(--no); }
.node { fill: var(--shade); stroke: var(--line); } .line { fill: none; stroke: var(--soft); }
@media print { nav { display: none; } body { max-width: none; padding: 0; } }
"""


def render_html(report: TechnicalReport) -> str:
    """The report as a page that stands alone. Same report, same text."""
    return _page(document_of(report))


def _page(document: Document) -> str:
    title = escape(document.title)
    anchors = [section.title.lower().replace(" ", "-") for section in document.sections]
    links = "".join(f'<a href="#{a}">{escape(s.title)}</a> ' for a, s in zip(anchors, document.sections, strict=True))
    body = "".join(
        f'<section id="{a}"><h2>{escape(s.title)}</h2>{"".join(map(_block, s.blocks))}</section>\n'
        for a, s in zip(anchors, document.sections, strict=True)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n<nav>{links}</nav>\n{body}</main>\n</body>\n</html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f"<p>{escape(block.text.strip())}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{_cell(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _table(block)
        case Picture():
            return block.svg


def _table(table: Table) -> str:
    if not any(table.head):
        rows = "".join(
            f'<tr><th scope="row">{_cell(row[0])}</th>{"".join(f"<td>{_cell(c)}</td>" for c in row[1:])}</tr>'
            for row in table.rows
        )
        return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{_cell(c)}</td>' for c in row)}</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    match cell:
        case Ref():
            return f'<a href="{escape(cell.href)}">{escape(cell.text)}</a>'
        case str():
            return escape(cell) or "-"
        case _:
            return ", ".join(_cell(ref) for ref in cell)
