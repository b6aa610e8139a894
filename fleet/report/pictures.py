"""Small pictures as SVG: time per phase, votes of a council, decisions and what they touch. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fleet.report.blocks import duration_text
from fleet.report.councils import CouncilSummary
from fleet.report.model import TechnicalReport
from fleet.report.times import PhaseTime

__all__ = ["decisions_picture", "phases_picture", "votes_picture"]

_WIDTH, _LABEL, _ROW = 640, 150, 24
_MOST_NODES = 12


def phases_picture(phases: Sequence[PhaseTime]) -> str:
    """One bar per phase, as long as its share of the longest."""
    longest = max((p.wall_ms for p in phases), default=0) or 1
    room = _WIDTH - _LABEL - 110
    rows = list[str]()
    for n, phase in enumerate(phases):
        y, width = n * _ROW, max(1, phase.wall_ms * room // longest)
        rows += [
            _text(_LABEL - 8, y + 16, phase.phase, "end"),
            _bar(_LABEL, y + 4, width, "bar"),
            _text(_LABEL + width + 8, y + 16, duration_text(phase.wall_ms)),
        ]
    return _svg("Time per phase", len(phases) * _ROW, rows)


def votes_picture(council: CouncilSummary) -> str:
    """One bar per candidate: approvals, rejections, abstentions, one unit per ballot."""
    most = max((c.approve + c.reject + c.abstain for c in council.candidates), default=0) or 1
    unit = (_WIDTH - _LABEL - 190) // most
    rows = list[str]()
    for n, c in enumerate(council.candidates):
        y, x = n * _ROW, _LABEL
        rows.append(_text(_LABEL - 8, y + 16, ("\u2713 " if c.won else "") + c.candidate_id, "end"))
        for count, kind in ((c.approve, "yes"), (c.reject, "no"), (c.abstain, "bar")):
            rows += [_bar(x, y + 4, count * unit, kind)] if count else []
            x += count * unit
        words = f"{c.approve} for, {c.reject} against, {c.abstain} abstained"
        rows.append(_text(x + 8, y + 16, words))
    return _svg(f"Votes of council {council.council_id}", len(council.candidates) * _ROW, rows)


def decisions_picture(report: TechnicalReport) -> str:
    """Decisions on the left, the tasks they affect on the right, relations between decisions as arcs."""
    decisions = [d.decision_id for d in report.decisions][:_MOST_NODES]
    titles = {d.decision_id: d.title for d in report.decisions} | {t.task_id: t.title for t in report.tasks}
    touched = {task for impact in report.impacts for task in impact.tasks}
    tasks = [t.task_id for t in report.tasks if t.task_id in touched][:_MOST_NODES]
    place = {id: n * 36 + 18 for n, id in enumerate(decisions)} | {id: n * 36 + 18 for n, id in enumerate(tasks)}
    lines = [
        _curve((250, place[i.decision_id]), (390, place[t]), bend=320)
        for i in report.impacts
        for t in i.tasks
        if i.decision_id in place and t in place
    ]
    lines += [
        _curve((10, place[e.source]), (10, place[e.target]), bend=-20)
        for e in report.decision_edges
        if e.source in place and e.target in place
    ]
    nodes = [*_nodes(decisions, titles, place, 10), *_nodes(tasks, titles, place, 390)]
    return _svg("Decisions and the tasks they affect", max(len(decisions), len(tasks)) * 36, [*lines, *nodes], left=20)


def _curve(start: tuple[int, int], end: tuple[int, int], *, bend: int) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<path class="line" d="M {x1} {y1} C {bend} {y1} {bend} {y2} {x2} {y2}"/>'


def _nodes(ids: Iterable[str], titles: dict[str, str], place: dict[str, int], x: int) -> Iterable[str]:
    for id in ids:
        title = titles[id] if len(titles[id]) <= 34 else f"{titles[id][:33]}\u2026"
        yield f'<rect class="node" x="{x}" y="{place[id] - 14}" width="240" height="28" rx="6"/>'
        yield _text(x + 8, place[id] + 4, title)


def _svg(label: str, height: int, parts: Iterable[str], *, left: int = 0) -> str:
    box = f"{-left} 0 {_WIDTH + left} {max(height, 1)}"
    body = "".join(parts)
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}"><title>{escape(label)}</title>{body}</svg>'


def _bar(x: int, y: int, width: int, kind: str) -> str:
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="16" rx="3"/>'


def _text(x: int, y: int, text: str, anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
