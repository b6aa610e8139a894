"""What is told of a running fleet: names of traces and spans, the trunk of a story's trace, metrics, log lines."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.observability.catalogue import (
        CATALOGUE,
        EXPORTED_PREFIX,
        Metric,
        MetricKind,
        exported_names,
        metrics_page,
    )
    from fleet.observability.event_figures import Figure, StepStart, figures_of
    from fleet.observability.exposition import EXPOSITION_TYPE, Counted, Series, exposed
    from fleet.observability.log_line import Cause, LogEntry, json_line, text_line
    from fleet.observability.open_stories import AGES, Age, Disposition, OpenStory, ages_of
    from fleet.observability.otlp import otlp_document
    from fleet.observability.span import Attribute, FinishedSpan, SpanKind
    from fleet.observability.story_trace import StoryTrace, request_span_id
    from fleet.observability.trace_ids import TraceContext, is_sampled, parse_traceparent, span_id_of, story_trace_id
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "AGES",
    "Age",
    "Attribute",
    "CATALOGUE",
    "Cause",
    "Counted",
    "Disposition",
    "EXPORTED_PREFIX",
    "EXPOSITION_TYPE",
    "Figure",
    "FinishedSpan",
    "LogEntry",
    "Metric",
    "MetricKind",
    "OpenStory",
    "Series",
    "SpanKind",
    "StepStart",
    "StoryTrace",
    "TraceContext",
    "ages_of",
    "exported_names",
    "exposed",
    "figures_of",
    "is_sampled",
    "json_line",
    "metrics_page",
    "otlp_document",
    "parse_traceparent",
    "request_span_id",
    "span_id_of",
    "story_trace_id",
    "text_line",
]
