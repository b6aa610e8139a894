"""Every metric of a fleet: name, kind, what it counts, and its labels. Nothing else is ever measured.

Labels have few values that are known beforehand: words of closed lists, names in the configuration, routes. Never the
id of a story, a principal or a run, and never text (AP-120).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MetricKind = Literal["counter", "gauge", "histogram"]
EXPORTED_PREFIX = "ray_"
"""What Ray puts before each name."""

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1200.0)
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_TOKENS = (250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0, 32000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. Units stand in the name; counters end in `_total`, as Prometheus wants it."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds; for histograms alone."""


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind="counter", help=help, labels=labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind="gauge", help=help, labels=labels)


def _histogram(name: str, help: str, *labels: str, buckets: tuple[float, ...] = _SECONDS) -> Metric:
    return Metric(name=name, kind="histogram", help=help, labels=labels, buckets=buckets)


_MODEL = ("engine", "replica", "actor")
_ALL = (
    # The HTTP front.
    _counter("fleet_http_requests_total", "Requests that were answered.", "app", "method", "route", "code"),
    _histogram("fleet_http_request_seconds", "Time until the last byte of an answer.", "app", "method", "route"),
    _gauge("fleet_http_streams_open", "Event streams and WebSockets that are open now.", "app", "kind"),
    _counter("fleet_http_streams_closed_total", "WebSockets that the front closed.", "app", "code"),
    # The event log and ownership.
    _counter("fleet_log_appends_total", "Appends by how they ended: stored, duplicate or an error code.", "outcome"),
    _histogram("fleet_log_append_seconds", "Time of an append, its wait for the disk included.", buckets=_FAST),
    _counter("fleet_events_total", "Events on record.", "type"),
    _counter("fleet_ownership_taken_total", "Stories that got a new owner, by why.", "cause"),
    _gauge("fleet_council_stories", "Stories that a council shard owns now.", "shard"),
    _gauge("fleet_council_stories_left_alone", "Stories that a shard works on no more after defects.", "shard"),
    # Stories and people.
    _counter("fleet_stories_created_total", "Stories that were created.", "rigor"),
    _counter("fleet_stories_closed_total", "Stories that came to an end.", "state"),
    _counter("fleet_stories_parked_total", "Times that a story had to wait for a person, by why.", "cause"),
    _counter("fleet_stories_unparked_total", "Times that a person let a parked story go on.", "cause"),
    _counter("fleet_approvals_requested_total", "Requests to a person.", "gate"),
    _counter("fleet_approvals_answered_total", "Answers to requests; silence ends as expired.", "answer"),
    _gauge("fleet_stories_open", "Stories that a shard owns, by disposition.", "shard", "disposition"),
    _gauge("fleet_approvals_pending", "Requests that nobody answered yet, by age.", "shard", "age"),
    _counter("fleet_redactions_total", "Secrets that were taken out of what is on record, by class.", "class"),
    # Commands.
    _histogram("fleet_command_seconds", "Time of a command over HTTP: answered, pending (202) or refused.", "outcome"),
    _gauge("fleet_commands_waiting", "Commands in the queue that no shard has answered."),
    _gauge("fleet_commands_oldest_seconds", "How long the oldest of them waits."),
    _gauge("fleet_dead_letters", "Work that failed each time it was tried, and was set aside."),
    _counter(
        "fleet_notifications_total",
        "Notifications by what came of an attempt: sent, failed, set_aside, or skipped as not to be told.",
        "target",
        "outcome",
    ),
    _gauge("fleet_notifications_owed", "What a notification target was not told yet.", "target"),
    # Councils and votes.
    _counter("fleet_councils_opened_total", "Councils that were convened.", "kind"),
    _counter("fleet_councils_ended_total", "Councils that ended: decided, cancelled, or why not decided.", "outcome"),
    _counter("fleet_council_votes_total", "Votes in valid ballots.", "vote"),
    _counter("fleet_council_ballots_refused_total", "Ballots that counted for nothing."),
    _counter("fleet_council_drafts_failed_total", "Seats that gave no draft."),
    # Steps, runs and tools.
    _counter("fleet_steps_total", "Steps with a result.", "kind", "outcome"),
    _histogram("fleet_step_seconds", "Time from the start of a step to its result.", "kind"),
    _counter("fleet_step_errors_total", "Steps that failed, by error code.", "code"),
    _counter("fleet_outcomes_unknown_total", "Effects of which nobody knows whether they happened."),
    _counter("fleet_tools_denied_total", "Tool calls that the policy refused.", "tool"),
    _counter("fleet_runs_total", "Commands that a sandbox ran, by how they ended.", "status"),
    _histogram("fleet_run_seconds", "Time of one command in the sandbox, its wait for a place included.", "status"),
    _gauge("fleet_runs_active", "Commands in the sandbox of a node, waiting ones included.", "node"),
    _gauge("fleet_disk_bytes", "What one kind of things takes on the disk of a node.", "node", "kind"),
    _gauge("fleet_disk_held_bytes", "Of it, what is in use or on record, and is never evicted.", "node", "kind"),
    _gauge("fleet_disk_items", "How many bases, folders, toolchains, layers or blobs these are.", "node", "kind"),
    _gauge("fleet_disk_limit_bytes", "What they may take.", "node", "kind"),
    _counter("fleet_stuck_total", "Tasks that went round in circles.", "pattern"),
    # Budgets.
    _counter("fleet_tokens_used_total", "Tokens on record.", "role", "direction"),
    _counter("fleet_cost_microusd_total", "Cost on record, in millionths of a dollar.", "role"),
    _counter("fleet_gpu_ms_total", "Share of the busy time of GPUs, in milliseconds.", "role"),
    _counter("fleet_unpriced_steps_total", "Model steps whose engine has no price.", "role"),
    _counter("fleet_budget_marks_total", "Budgets nearly (warning) or quite (exhausted) used up.", "mark", "scope"),
    # Context packs.
    _histogram("fleet_pack_seconds", "Time in which a context pack was built.", "outcome"),
    _histogram("fleet_pack_tokens", "Size of context packs.", buckets=_TOKENS),
    _counter("fleet_pack_items_dropped_total", "Items that did not fit into a pack.", "scope"),
    # Models.
    _histogram("fleet_model_call_seconds", "Time of one call of a model, as its caller sees it.", "engine", "outcome"),
    _counter("fleet_model_fallbacks_total", "Answers that came from another engine of the chain.", "engine"),
    _gauge("fleet_model_calls_running", "Calls that a replica works on now.", *_MODEL),
    _gauge("fleet_model_queue_waiting", "Calls that wait for their turn now.", *_MODEL),
    _gauge("fleet_model_queue_served", "Calls that got their turn.", *_MODEL),
    _gauge("fleet_model_queue_wait_seconds", "Sum of the waits of calls that were served.", *_MODEL),
    _gauge("fleet_model_calls_rejected", "Calls that were told to come later.", *_MODEL),
    _gauge("fleet_model_calls", "Calls that were given to a replica.", *_MODEL),
    _gauge("fleet_model_calls_failed", "Calls that a replica did not answer.", *_MODEL),
    _gauge("fleet_model_circuit_open", "1 while a replica is not asked.", *_MODEL),
    _gauge("fleet_model_tokens_in", "Tokens of prompts.", *_MODEL),
    _gauge("fleet_model_tokens_out", "Tokens of replies.", *_MODEL),
    _gauge("fleet_model_tokens_cached", "Tokens of prompts that a prefix cache held.", *_MODEL),
    _gauge("fleet_model_cache_hit_ratio", "Share of prompt tokens that a prefix cache held.", *_MODEL),
    # The decision graph.
    _gauge("fleet_projection_lag_events", "Events on record that the decision graph does not hold yet."),
    _gauge("fleet_projection_streams_behind", "Streams of which the decision graph lacks events."),
    _gauge("fleet_projection_streams_set_aside", "Streams that the projector cannot go on with; see the dead letters."),
    # Actors and telemetry itself.
    _counter("fleet_actor_failures_total", "Background work of an actor that failed and was started again.", "actor"),
    _counter("fleet_log_records_total", "Log records of warnings and errors.", "level"),
    _counter("fleet_spans_lost_total", "Spans that could not be exported.", "reason"),
)
CATALOGUE: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by its name."""


def exported_names(metric: Metric) -> tuple[str, ...]:
    """The series that Prometheus sees of a metric."""
    name = EXPORTED_PREFIX + metric.name
    return (f"{name}_bucket", f"{name}_count", f"{name}_sum") if metric.kind == "histogram" else (name,)


def metrics_page() -> str:
    """docs/metrics.md."""
    rows = [
        f"| `{EXPORTED_PREFIX}{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |"
        for m in CATALOGUE.values()
    ]
    return _INTRO + "\n".join(rows) + "\n"


_INTRO = """# Metrics

This page is made by `scripts/metrics.py` from `fleet.telemetry.catalogue.CATALOGUE`; do not edit it.

Every node of the Ray cluster serves its metrics in the text format of Prometheus; Ray writes the addresses of all nodes
into `prom_metrics_service_discovery.json` of its session folder, for the service discovery of Prometheus. Ray adds the
labels `WorkerId`, `Component`, `NodeAddress`, `SessionName` and `Version` to those below. A histogram is exported as
`_bucket`, `_count` and `_sum`. Dashboard and alerts that use these metrics: [observability](observability.md).

| metric | kind | labels | what it says |
|---|---|---|---|
"""
