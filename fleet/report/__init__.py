"""The technical report: what a story did, why, at which cost, and what can be traced (pure)."""

from fleet.report.build import build_report
from fleet.report.context_figures import (
    Compression,
    ContextFigures,
    PackFigures,
    context_figures,
    sum_figures,
)
from fleet.report.councils import CandidateRow, CouncilSummary, SeatRow, council_summaries
from fleet.report.history import Events
from fleet.report.html import render_html
from fleet.report.markdown import render_markdown
from fleet.report.model import ReportOptions, TechnicalReport, TraceClass
from fleet.report.reconcile import EngineUse, UsageDifference, comparable, differences, settlements
from fleet.report.runbook import runbook
from fleet.report.stats import statistics
from fleet.report.timeline import describe
from fleet.report.times import PhaseTime, human_wait_ms, phase_times
from fleet.report.trace import trace, traceability
from fleet.report.trajectory import (
    TRAJECTORY_SCHEMA,
    TRAJECTORY_TABLES,
    BallotRow,
    ContributionRow,
    CouncilRow,
    Criterion,
    EventRow,
    EvidenceRow,
    GateOutcome,
    JsonText,
    MessageRow,
    PhaseTokens,
    SeatOfCouncil,
    StepRow,
    StoryRow,
    TestDropped,
    ToolAsked,
    TrajectoryRow,
    VoteOn,
)
from fleet.report.usage import USAGE_KEYS, UsageKey, UsageRow, UsageSum, sum_usage, usage_rows
from fleet.report.workflow import Stay, first_try_rates, stays

__all__ = [
    "runbook",
    "Stay",
    "first_try_rates",
    "stays",
    "TRAJECTORY_SCHEMA",
    "TRAJECTORY_TABLES",
    "BallotRow",
    "ContributionRow",
    "CouncilRow",
    "Criterion",
    "EventRow",
    "EvidenceRow",
    "GateOutcome",
    "JsonText",
    "MessageRow",
    "PhaseTokens",
    "SeatOfCouncil",
    "StepRow",
    "StoryRow",
    "TestDropped",
    "ToolAsked",
    "TrajectoryRow",
    "VoteOn",
    "EngineUse",
    "UsageDifference",
    "comparable",
    "differences",
    "settlements",
    "USAGE_KEYS",
    "UsageKey",
    "UsageRow",
    "UsageSum",
    "sum_usage",
    "usage_rows",
    "Compression",
    "ContextFigures",
    "PackFigures",
    "context_figures",
    "sum_figures",
    "CandidateRow",
    "CouncilSummary",
    "Events",
    "PhaseTime",
    "ReportOptions",
    "SeatRow",
    "TechnicalReport",
    "TraceClass",
    "build_report",
    "council_summaries",
    "describe",
    "human_wait_ms",
    "phase_times",
    "render_html",
    "render_markdown",
    "statistics",
    "trace",
    "traceability",
]
