"""A report as a document: its sections in the order of RP-10..RP-28."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape

from fleet.events.codec import rfc3339
from fleet.events.values import Json
from fleet.report.councils import CandidateRow, CouncilSummary
from fleet.report.model import CriterionRow, TechnicalReport
from fleet.report.render.blocks import (
    Block,
    Bullets,
    Cell,
    Document,
    Paragraph,
    Picture,
    Ref,
    Section,
    Table,
    duration_text,
)
from fleet.report.times import PhaseTime

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


def seat(member_id: str, proposes: bool, votes: bool, writes_tests: bool) -> str:
    """A member of a council, and what it may do there."""
    parts = [name for name, on in (("drafts", proposes), ("votes", votes), ("writes tests", writes_tests)) if on]
    return f"{member_id} ({', '.join(parts) or 'watches'})"


def counterfactuals(council: CouncilSummary) -> str:
    """Whom each simpler rule would have chosen."""
    return ", ".join(f"{k}: {_counterfactual(v)}" for k, v in sorted(council.counterfactuals.items())) or "-"


def _counterfactual(value: Json) -> str:
    match value:
        case {"candidate_id": name, "gates_ok": ok, "trusted_passed": passed, "trusted_total": total}:
            return f"{name} ({'passes' if ok else 'fails'} the gates, {passed} of {total} trusted tests)"
        case {"candidate_id": name}:
            return f"{name} (not measured)"
        case _:
            return _plain(value)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


_RESOURCES = {
    "pr": "/api/projects/{id}",
    "ep": "/api/epics/{id}",
    "st": "/api/planner/stories/{id}",
    "tk": "/api/tasks/{id}",
    "pv": "/api/planner/stories/{story}/plans/{id}",
    "ac": "/api/planner/stories/{story}#{id}",
    "de": "/api/decisions/{id}",
    "qu": "/api/planner/stories/{story}/questions#{id}",
    "ap": "/api/approvals/{id}",
    "rn": "/api/runs/{id}",
    "co": "/api/councils/{id}",
    "cd": "/api/planner/stories/{story}/report?format=json#{id}",
}


def resource(id: str, story_id: str) -> Cell:
    """The id as a link to its resource of the API; plain text when it names none (RP-41)."""
    if id.startswith("sha256:"):
        return Ref(text=f"{id[7:19]}\u2026", href=f"/api/artifacts/{id}")
    path = _RESOURCES.get(id.split("-", 1)[0])
    return Ref(text=id, href=path.format(id=id, story=story_id)) if path else id


def document_of(report: TechnicalReport) -> Document:
    """The sections of the report that are not left out."""
    page = _Page(report)
    candidates: tuple[tuple[str, Iterable[Block], bool], ...] = (
        ("Report", page.header(), True),
        ("Overview", page.overview(), True),
        ("Constraints", page.constraints(), report.options.include_constraints),
        ("Acceptance criteria", page.criteria(), report.options.include_acceptance),
        ("Plan", page.plan(), True),
        ("Tasks", page.tasks(), report.plan is not None),
        ("Decisions", page.decisions(), True),
        ("Decision dependencies and impact", page.impact(), report.options.include_dependencies),
        ("Councils", page.councils(), report.options.include_council),
        ("Approvals", page.approvals(), True),
        ("Executions", page.executions(), True),
        ("Quality", page.quality(), True),
        ("Time per phase", page.phases(), True),
        ("Timeline", page.timeline(), report.options.include_timeline),
        ("Analytics", page.analytics(), report.options.include_analytics),
        ("Costs", page.costs(), report.options.include_costs),
        ("Traceability", page.traceability(), True),
        ("Next steps", page.next_steps(), True),
    )
    sections = tuple(Section(title, tuple(blocks)) for title, blocks, is_wanted in candidates if is_wanted)
    return Document(title=f"Technical report: {report.header.title}", sections=sections)


class _Page:
    """Writes one section per method."""

    def __init__(self, report: TechnicalReport) -> None:
        self._r = report

    def _ref(self, id: str | None) -> Cell:
        return resource(id, self._r.header.story_id) if id else "-"

    def _refs(self, ids: Iterable[str]) -> Cell:
        cells = [self._ref(id) for id in ids]
        links = tuple(cell for cell in cells if isinstance(cell, Ref))
        return links if links and len(links) == len(cells) else ", ".join(map(str, ids)) or "-"

    def header(self) -> Iterable[Block]:
        h = self._r.header
        plan = f"version {h.plan_version}, {h.plan_status}, by {h.plan_author}" if h.plan_id else "none"
        rows: tuple[tuple[Cell, ...], ...] = (
            ("Story", self._ref(h.story_id)),
            ("Project", self._ref(h.project_id)),
            ("Epic", self._ref(h.epic_id)),
            ("State", f"{h.state} ({h.disposition})"),
            ("Rigor and lifecycle", f"{h.rigor}, {h.lifecycle}"),
            ("Plan", self._ref(h.plan_id)),
            ("Plan version", plan),
            ("As of version", f"{h.as_of}, head {h.head_hash[:16]}"),
            ("Report", h.status),
        )
        yield Table(("", ""), rows)

    def overview(self) -> Iterable[Block]:
        o = self._r.overview
        yield Paragraph(o.description or "No description.")
        tests = f"{o.tests_passed} passed, {o.tests_failed} failed" if o.tests_passed is not None else "none recorded"
        verdict = f"{o.verdict}, {o.score} of 100, limited by {o.limited_by}" if o.verdict else "not scored"
        rows: tuple[tuple[Cell, ...], ...] = (
            ("Outcome", o.outcome),
            ("Verdict", verdict),
            ("Tests of the delivered tree", tests),
            ("Commit", o.commit or "-"),
            ("Base commit", o.base_commit or "-"),
            ("Tree", self._ref(o.tree)),
            ("Asked for by", o.requester),
            ("Model profile", o.model or "-"),
        )
        yield Table(("", ""), rows)

    def constraints(self) -> Iterable[Block]:
        r = self._r
        lines = [f"{k}: {json.dumps(v, ensure_ascii=False, sort_keys=True)}" for k, v in sorted(r.constraints.items())]
        yield Bullets(tuple(lines)) if lines else Paragraph("No constraints.")
        yield Paragraph(f"Tags: {', '.join(r.tags) or 'none'}")

    def criteria(self) -> Iterable[Block]:
        rows = tuple((self._ref(c.ac_id), c.text, self._refs(c.tasks), self._evidence_of(c)) for c in self._r.criteria)
        yield Table(("Criterion", "Text", "Tasks", "Evidence"), rows) if rows else Paragraph("No acceptance criteria.")

    def _evidence_of(self, row: CriterionRow) -> Cell:
        if row.evidence:
            return self._refs(row.evidence)
        return f"not shown; waived by {row.waived}" if row.waived else "no evidence"

    def plan(self) -> Iterable[Block]:
        plan = self._r.plan
        if plan is None:
            yield Paragraph("There is no plan.")
            return
        yield Paragraph(plan.rationale)
        yield Paragraph(f"Complexity: {plan.complexity}")
        rows = tuple((self._ref(v.plan_id), str(v.version), v.status, v.author, v.rationale) for v in plan.versions)
        yield Table(("Plan", "Version", "Status", "Author", "Why"), rows)

    def tasks(self) -> Iterable[Block]:
        rows = tuple(
            (
                self._ref(t.task_id),
                t.title,
                t.role,
                self._refs(t.depends_on),
                str(t.points or "-"),
                t.actual_h or "-",
                str(t.priority),
                t.risk,
                t.state,
                ", ".join(t.tech) or "-",
                str(t.attempts),
                str(t.tokens),
            )
            for t in self._r.tasks
        )
        head = ("ID", "Title", "Role", "Depends on", "Est. points", "Actual h", "Priority", "Risk", "State", "Tech")
        yield Table((*head, "Attempts", "Tokens"), rows)
        if self._r.estimate_errors:
            errors = tuple(
                (e.role, str(e.tasks), str(e.estimated_h), e.actual_h, e.error_median, str(e.tokens), str(e.gpu_ms))
                for e in self._r.estimate_errors
            )
            yield Table(("Role", "Tasks done", "Est. h", "Actual h", "Median error", "Tokens", "GPU ms"), errors)
        if self._r.plan:
            edges = tuple(f"{a} needs {b}" for a, b in self._r.plan.dependencies)
            yield Bullets(edges) if edges else Paragraph("No dependencies.")
            yield Bullets(tuple(f"Layer {n}: {', '.join(x)}" for n, x in enumerate(self._r.plan.layers, start=1)))

    def decisions(self) -> Iterable[Block]:
        if not self._r.decisions:
            yield Paragraph("No decision is recorded.")
        for d in self._r.decisions:
            decider = f"{d.decided_by or '-'} as {d.as_role or '-'}" + (" (delegated)" if d.delegated else "")
            when = rfc3339(d.decided_ms) if d.decided_ms is not None else "open"
            rows: tuple[tuple[Cell, ...], ...] = (
                ("Decision", self._ref(d.decision_id)),
                ("What", d.title),
                ("Status", f"{d.status}, {d.category}"),
                ("Why", d.rationale),
                ("Alternatives", "; ".join(d.alternatives) or "none"),
                ("Proposed by", d.author),
                ("Decided by", decider if d.decided_by else "-"),
                ("When", when),
                ("Evidence", ", ".join(d.evidence) or "-"),
                ("Council", self._ref(d.council_id)),
            )
            yield Table(("", ""), rows)

    def impact(self) -> Iterable[Block]:
        edges = tuple(f"{e.source} {e.relation} {e.target}" for e in self._r.decision_edges)
        yield Bullets(edges) if edges else Paragraph("No decision depends on another.")
        rows = tuple(
            (self._ref(i.decision_id), self._refs(i.tasks), ", ".join(i.files) or "-", self._refs(i.criteria))
            for i in self._r.impacts
        )
        if rows:
            yield Table(("Decision", "Tasks", "Files", "Criteria"), rows)
            yield Picture(decisions_picture(self._r))

    def councils(self) -> Iterable[Block]:
        if not self._r.councils:
            yield Paragraph("No council was convened.")
        for council in self._r.councils:
            yield from self._council(council)

    def _council(self, c: CouncilSummary) -> Iterable[Block]:
        outcome = f"{c.status} in {c.decided_in}" if c.decided_in else f"{c.status}: {c.reason or 'no outcome yet'}"
        tokens = ", ".join(f"{name} {n}" for name, n in sorted(c.tokens.items())) or "-"
        rows: tuple[tuple[Cell, ...], ...] = (
            ("Council", self._ref(c.council_id)),
            ("About", f"{c.kind} of {c.output_kind}"),
            ("Task", self._ref(c.task_id)),
            ("Outcome", outcome),
            ("Winner", self._ref(c.winner)),
            *((("Verdict", c.verdict),) if c.verdict else ()),
            *((("Estimate", str(c.estimate)),) if c.estimate else ()),
            *((("Advice, asked for by", c.requested_by),) if c.requested_by else ()),
            ("Members", ", ".join(seat(s.member_id, s.proposes, s.votes, s.writes_tests) for s in c.roster)),
            ("Ballots", f"{c.ballots} valid, quorum {c.quorum}; refused: {', '.join(c.ballots_refused) or 'none'}"),
            ("Drafts that failed", ", ".join(c.drafts_failed) or "none"),
            ("Tests", f"{c.tests_written} written, {len(c.tests_kept)} trusted"),
            ("Without the council", counterfactuals(c)),
            ("Tokens", f"{c.tokens_total} ({tokens}); {c.tokens_ledger} in recorded calls"),
            ("Decision hash", c.decision_hash or "-"),
            ("Minority report", self._ref(c.minority_report)),
        )
        yield Table(("", ""), rows)
        if c.estimate_rounds:
            rounds = tuple(
                (str(r.round), str(r.median or "-"), " ".join(map(str, r.values)) or "-", str(r.absent))
                for r in c.estimate_rounds
            )
            yield Table(("Round", "Median", "Values", "Absent"), rounds)
        if c.candidates:
            head = (
                "Candidate",
                "Drafted by",
                "Gates",
                "Trusted tests",
                "Cluster",
                "Diff",
                "For",
                "Against",
                "Abstained",
            )
            yield Table(head, tuple(self._candidate(x) for x in c.candidates))
            yield Picture(votes_picture(c))
        told = [f"Test {test} is not trusted: {why}" for test, why in c.tests_dropped]
        told += [f"Test {test} passes without a candidate too" for test in c.tests_passed_before or ()]
        if told:
            yield Bullets(tuple(told))

    def _candidate(self, x: CandidateRow) -> tuple[Cell, ...]:
        gates = "not measured" if x.gates_ok is None else "ok" if x.gates_ok else f"failed: {', '.join(x.failed_gates)}"
        tests = f"{x.trusted_passed} of {x.trusted_total}"
        return (
            self._ref(x.candidate_id),
            ", ".join(x.authors) or "-",
            gates,
            tests,
            str(x.cluster_size),
            str(x.diff_lines),
            str(x.approve),
            str(x.reject),
            str(x.abstain),
        )

    def approvals(self) -> Iterable[Block]:
        rows = tuple(
            (
                self._ref(a.approval_id),
                a.gate,
                a.role,
                a.status + (" (delegated)" if a.delegated else ""),
                a.principal or "-",
                rfc3339(a.requested_ms),
                rfc3339(a.decided_ms) if a.decided_ms is not None else "-",
                a.notes or "-",
            )
            for a in self._r.approvals
        )
        head = ("Approval", "Gate", "Role", "Status", "By", "Requested", "Decided", "Notes")
        yield Table(head, rows) if rows else Paragraph("No approval was asked for.")

    def executions(self) -> Iterable[Block]:
        runs = [s for s in self._r.steps if s.kind != "model"]
        rows = tuple(
            (
                s.step_id,
                s.what,
                s.principal,
                s.outcome if s.resolution is None else f"{s.outcome}, resolved: {s.resolution}",
                str(s.exit_code) if s.exit_code is not None else "-",
                self._ref(s.tree_in),
                self._ref(s.tree_out),
                duration_text(s.took_ms),
                s.rule_id,
            )
            for s in runs
        )
        head = ("Step", "Tool", "By", "Outcome", "Exit", "Tree in", "Tree out", "Took", "Rule")
        yield Table(head, rows) if rows else Paragraph("Nothing was run.")
        weak = tuple((s.step_id, ", ".join(s.unmet)) for s in runs if s.unmet)
        if weak:
            yield Table(("Step", "Isolation that was missing and waived"), weak)
        reached = tuple((s.step_id, contact) for s in runs for contact in s.contacts)
        if reached:
            yield Table(("Step", "Asked for outside"), reached)
        calls = [s for s in self._r.steps if s.kind == "model"]
        yield Paragraph(f"{len(calls)} model calls, {sum(s.tokens for s in calls)} tokens.")
        denied = tuple((d.what, d.principal, d.rule_id, d.reason) for d in self._r.denied)
        yield Table(("Denied call", "By", "Rule", "Why"), denied) if denied else Paragraph("No call was denied.")

    def quality(self) -> Iterable[Block]:
        q = self._r.quality
        if q is None:
            yield Paragraph("No tree was measured.")
            return
        rows = tuple(
            (str(s.version), self._ref(s.tree), s.score, s.verdict, s.rigor, s.limited_by, "; ".join(s.reasons) or "-")
            for s in q.scores
        )
        yield Table(("Version", "Tree", "Score", "Verdict", "Rigor", "Limited by", "Findings"), rows)
        yield Table(("Dimension", "Value", "Limit", "Score"), q.dimensions)
        yield Table(("Hard gate", "Value", "Limit", "Result"), q.gates)
        tests = tuple((n, str(p), str(f), str(e), str(s)) for n, p, f, e, s in q.tests)
        yield Table(("Tests", "Passed", "Failed", "Errored", "Skipped"), tests) if tests else Paragraph("No test ran.")
        coverage = f"{q.coverage_new_pct} %" if q.coverage_new_pct is not None else "not measured"
        secrets = str(q.secrets_found) if q.secrets_found is not None else "not searched for"
        yield Paragraph(f"Coverage of new lines: {coverage}. Secrets found: {secrets}.")

    def phases(self) -> Iterable[Block]:
        rows = tuple(
            (
                p.phase,
                duration_text(p.wall_ms),
                str(p.model_calls),
                duration_text(p.model_ms),
                str(p.runs),
                duration_text(p.run_ms),
            )
            for p in self._r.phases
        )
        yield Table(("Phase", "Time", "Model calls", "In models", "Runs", "In runs"), rows)
        yield Picture(phases_picture(self._r.phases))

    def timeline(self) -> Iterable[Block]:
        rows = tuple(
            (str(t.version), rfc3339(t.ts_ms), t.actor + (" (person)" if t.human else ""), t.text)
            for t in self._r.timeline
        )
        if self._r.timeline_omitted:
            yield Paragraph(f"{self._r.timeline_omitted} older events are left out.")
        yield Table(("Version", "When", "Who", "What"), rows)

    def analytics(self) -> Iterable[Block]:
        yield Table(("Finding", "Value"), self._r.analytics)

    def costs(self) -> Iterable[Block]:
        rows = tuple(
            (
                c.group,
                self._ref(c.name) if c.group == "council" else c.name,
                str(c.calls),
                str(c.tokens_in),
                str(c.tokens_out),
                str(c.tokens_cached),
                str(c.tokens_unpriced),
                duration_text(c.gpu_ms),
                str(c.cost_microusd),
            )
            for c in self._r.costs
        )
        head = ("By", "Name", "Steps", "Tokens in", "Tokens out", "Cached", "Unpriced", "GPU", "Cost (microusd)")
        yield Table(head, rows) if rows else Paragraph("Nothing was used.")
        used = tuple(
            (
                b.scope,
                self._ref(b.id) if b.scope in ("story", "task", "council") else b.id,
                b.quantity,
                str(b.spent),
                str(b.reserved),
                str(b.limit) if b.limit is not None else "as configured",
            )
            for b in self._r.budgets
        )
        if used:
            yield Table(("Budget", "Of", "Quantity", "Spent", "Reserved", "Limit"), used)

    def traceability(self) -> Iterable[Block]:
        classes = self._r.trace_classes
        rows = tuple((c.name, f"{c.linked} of {c.total}") for c in classes)
        total = self._r.traceability
        yield Table(("Class", "Linked"), (*rows, ("all", f"{total.linked} of {total.total}")))
        orphans = tuple((o.id, o.missing, c.name) for c in classes for o in c.orphans)
        yield Table(("Orphan", "Missing link", "Class"), orphans) if orphans else Paragraph("No link is missing.")

    def next_steps(self) -> Iterable[Block]:
        steps = self._r.next_steps
        yield Bullets(steps) if steps else Paragraph("Nothing is left to do.")
