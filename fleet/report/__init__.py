"""The technical report: what a story did, why, at which cost, and what can be traced (pure)."""

from fleet.report.build import build_report
from fleet.report.councils import CandidateRow, CouncilSummary, SeatRow, council_summaries
from fleet.report.history import Events
from fleet.report.html import render_html
from fleet.report.markdown import render_markdown
from fleet.report.model import ReportOptions, TechnicalReport, TraceClass
from fleet.report.stats import statistics
from fleet.report.timeline import describe
from fleet.report.times import PhaseTime, human_wait_ms, phase_times
from fleet.report.trace import trace, traceability

__all__ = [
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
