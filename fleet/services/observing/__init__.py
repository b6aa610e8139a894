"""What processes tell of their work: causes, spans, figures; wrapped around ports, so that services need not know."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.services.observing.cause import carried, current_cause, on_behalf_of, received
    from fleet.services.observing.observed_log import ObservedLog, recorded_trace, root_of
    from fleet.services.observing.shard_figures import ShardFigures
    from fleet.services.observing.timed_ports import TimedBackend, TimedModel, TimedModels, TimedPacks
    from fleet.services.observing.traced_ports import TracedAgents, TracedPacks, TracedSandbox, TracedToolHost
    from fleet.services.observing.tracing import OpenSpan, Tracer, outgoing_traceparent
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "ObservedLog",
    "OpenSpan",
    "ShardFigures",
    "TimedBackend",
    "TimedModel",
    "TimedModels",
    "TimedPacks",
    "TracedAgents",
    "TracedPacks",
    "TracedSandbox",
    "TracedToolHost",
    "Tracer",
    "carried",
    "current_cause",
    "on_behalf_of",
    "outgoing_traceparent",
    "received",
    "recorded_trace",
    "root_of",
]
