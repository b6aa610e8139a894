"""Rendering: same report, same text; nothing in a story can break out of its place (RP-2, RP-41)."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.events.council import EvidenceGate, EvidenceRecorded
from fleet.events.decision import DecisionLink
from fleet.events.story import AcceptanceCriterion
from fleet.kernel.ids import EntityId
from fleet.report.build import build_report
from fleet.report.model import TechnicalReport
from fleet.report.render.blocks import Ref, duration_text
from fleet.report.render.document import document_of, resource
from fleet.report.render.html import render_html
from fleet.report.render.markdown import render_markdown
from tests.support.event_samples import samples
from tests.support.story_events import DECISION, DOC_TASK, StoryLog, created_payload, decision_payload, story

SECTIONS = (
    "Report",
    "Overview",
    "Constraints",
    "Acceptance criteria",
    "Plan",
    "Tasks",
    "Decisions",
    "Decision dependencies and impact",
    "Councils",
    "Approvals",
    "Executions",
    "Quality",
    "Time per phase",
    "Timeline",
    "Analytics",
    "Costs",
    "Traceability",
    "Next steps",
)
VOID = {"meta"}


class Page(HTMLParser):
    """Collects tags and text, and fails when a tag is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(log: StoryLog) -> TechnicalReport:
    return build_report(log.state, log.decoded)


def parse(page: str) -> Page:
    parsed = Page(page)
    assert parsed.open == []
    return parsed


@pytest.mark.rule("RP-2")
def test_rendering_twice_gives_the_same_text() -> None:
    assert render_markdown(report(story())) == render_markdown(report(story()))
    assert render_html(report(story())) == render_html(report(story()))


def test_sections_come_in_the_order_of_the_rules_in_both_forms() -> None:
    made = report(story())
    assert tuple(re.findall(r"^## (.+)$", render_markdown(made), re.M)) == SECTIONS
    assert tuple(re.findall(r"<h2>(.+?)</h2>", render_html(made))) == SECTIONS


def test_options_leave_their_sections_out_of_the_text() -> None:
    log = story()
    made = build_report(log.state, log.decoded)
    short = made.model_copy(update={"options": made.options.model_copy(update={"include_council": False})})
    assert "Councils" not in [s.title for s in document_of(short).sections]
    assert "Tasks" not in [s.title for s in document_of(report(story(until="created"))).sections]


def test_page_stands_alone_without_script_or_foreign_address() -> None:
    page = render_html(report(story()))
    parsed = parse(page)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    addresses = [a[k] for _, a in parsed.tags for k in ("href", "src") if a.get(k)]
    assert addresses
    assert all(address is not None and address[0] in "/#" for address in addresses)
    assert "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page


def test_page_draws_phases_votes_and_decisions() -> None:
    labels = [a.get("aria-label") for tag, a in parse(render_html(report(story()))).tags if tag == "svg"]
    assert labels == [
        "Decisions and the tasks they affect",
        "Votes of council co-design1",
        "Votes of council co-task1",
        "Time per phase",
    ]


@pytest.mark.rule("RP-41")
def test_ids_and_digests_are_links_to_their_resources() -> None:
    text = render_markdown(report(story()))
    for link in (
        "[st-slug7](/api/planner/stories/st-slug7)",
        "[tk-slug1](/api/tasks/tk-slug1)",
        "[de-design1](/api/decisions/de-design1)",
        "[co-task1](/api/councils/co-task1)",
        "[pv-first1](/api/planner/stories/st-slug7/plans/pv-first1)",
    ):
        assert link in text
    assert re.search(r"\[[0-9a-f]{12}…\]\(/api/artifacts/sha256:[0-9a-f]{64}\)", text)
    assert resource("xx-1", "st-a1") == "xx-1"
    assert isinstance(resource("qu-1", "st-a1"), Ref)


def test_report_of_a_bare_story_says_what_there_is_not() -> None:
    bare = StoryLog().add(created_payload(acceptance_criteria=(), constraints={}, tags=(), description=""))
    text = render_markdown(report(bare))
    for words in (
        "No acceptance criteria.",
        "There is no plan.",
        "No decision is recorded.",
        "No council was convened.",
    ):
        assert words in text
    for words in ("No approval was asked for.", "Nothing was run.", "No tree was measured.", "Nothing was used."):
        assert words in text
    assert "No description." in text
    parse(render_html(report(bare)))


def test_report_of_a_troubled_story_shows_its_troubles() -> None:
    log = story(until="task")
    link = DecisionLink(rel="GOVERNS", decision_id=DECISION)
    log.add(decision_payload(EntityId("de-two2"), title="x" * 60, links=(link,), affects=(DOC_TASK,)))
    log.add(samples()["StepStarted"].model_copy(update={"task_id": None, "council_id": None, "approval_id": None}))
    log.add(samples()["StepResolved"], samples()["ToolDenied"], samples()["StoryParked"], samples()["WorkspaceScored"])
    opened = next(p for p in log.decoded_payloads("CouncilOpened"))
    log.add(opened.model_copy(update={"council_id": EntityId("co-open3")}))
    evidence = log.decoded_payloads("EvidenceRecorded")[-1]
    assert isinstance(evidence, EvidenceRecorded)
    failing = evidence.evidence.model_copy(update={"gates": (EvidenceGate(name="build", ok=False),), "gates_ok": False})
    draft = log.decoded_payloads("DraftReceived")[-1].model_copy(
        update={"council_id": EntityId("co-open3"), "candidate_id": EntityId("cd-new3")}
    )
    log.add(evidence.model_copy(update={"council_id": EntityId("co-open3"), "evidence": failing}), draft)
    made = build_report(log.state, log.decoded)
    text = render_markdown(made.model_copy(update={"timeline_omitted": 3}))
    for words in (
        "de-two2 GOVERNS de-design1",
        "unfinished, resolved: happened",
        "curl is not in the command list",
        "Parked (council\\_undecided)".replace("\\", ""),
        "in progress: no outcome yet",
        "failed: build",
        "not measured",
        "3 older events are left out.",
        "No test ran.",
    ):
        assert words in text, words
    parse(render_html(made))


NASTY = "<script>alert(1)</script> | [x](javascript:1) `a` *b* \\ _c_ \n# top\n1. one\n- two\n> q"


def test_markdown_of_hostile_text_keeps_table_headings_and_links() -> None:
    log = StoryLog().add(created_payload(title="a | b", description=NASTY, tags=("<b>",)))
    text = render_markdown(report(log))
    assert "# Technical report: a \\| b" in text
    assert "\\<script\\>" in text
    assert "\n\\# top" in text
    assert "\n1\\. one" in text
    assert "\n\\- two" in text
    assert "\n\\> q" in text
    assert "\\[x\\](javascript:1)" in text
    assert len(re.findall(r"^# ", text, re.M)) == 1


@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=60))
def test_page_of_any_text_is_well_formed_and_shows_it(text: str) -> None:
    criterion = AcceptanceCriterion(ac_id=EntityId("ac-any1"), text=text)
    log = StoryLog().add(created_payload(title=text, description=text, acceptance_criteria=(criterion,)))
    page = render_html(report(log))
    parsed = parse(page)
    assert text.strip() in parsed.text
    assert all(len(row) == len(t.head) for t in tables(report(log)) for row in t.rows)
    for line in render_markdown(report(log)).splitlines():
        if line.startswith("| [ac-any1]"):
            assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 5


def tables(made: TechnicalReport) -> list:
    from fleet.report.render.blocks import Table

    return [b for s in document_of(made).sections for b in s.blocks if isinstance(b, Table)]


def test_durations_are_told_as_people_read_them() -> None:
    values = [0, 999, 1000, 3450, 59_999, 60_000, 125_000, 3_840_000]
    words = ["0 ms", "999 ms", "1.0 s", "3.4 s", "59.9 s", "1 min 0 s", "2 min 5 s", "1 h 4 min"]
    assert [duration_text(v) for v in values] == words


@pytest.mark.rule("RP-4", "RP-2")
def test_report_has_no_part_that_a_model_wrote_about_it() -> None:
    report = build_report(story().state, story().decoded)
    assert not [name for name in type(report).model_fields if "narrative" in name.lower()]
    assert "model-written" not in render_markdown(report)
    assert render_markdown(report) == render_markdown(build_report(story().state, story().decoded))
