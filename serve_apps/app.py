"""The Serve applications: stateless deployments, each of which builds its app inside the replica."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

from actors.model_gauges import model_gauges, shown_as
from fleet.adapters.clock import SystemClock
from fleet.adapters.ray import RayMeter
from fleet.adapters.telemetry import KeptMeter
from fleet.config import ServeAppSettings, ServeSettings
from fleet.errors import ConfigError
from fleet.models import ModelFigures
from fleet.services.model_reporter import figures_of_routers
from fleet.services.redaction import redact_logs
from fleet.wiring import (
    Endpoints,
    load_principals,
    make_budget_desk,
    make_desk,
    make_tool_desk,
)
from fleet.wiring.chat_desk import make_chat_parts
from fleet.wiring.model_figures import make_model_reporter
from fleet.wiring.redaction import use_configured_redaction
from fleet.wiring.telemetry import make_telemetry, story_root
from serve_apps.gateway import build_gateway
from serve_apps.llm import LLM_PREFIX, build_llm
from serve_apps.observed import ObservedRequests
from serve_apps.parts import make_front_parts
from serve_apps.rpc import SERVICER_FUNCTIONS, RpcCalls

__all__ = [
    "Find",
    "gateway_application",
    "llm_application",
    "rpc_options",
    "start_serve",
    "stop_serve",
]

APPLICATION = "fleet"
LLM_APPLICATION = "llm"
Find = Callable[[], Endpoints]
"""Says inside of a replica where the fleet is."""


def start_serve(endpoints: Endpoints, *, port: int) -> str:
    """The front answers over HTTP, and over gRPC where that is turned on; its URL. ConfigError when a port is taken."""
    front = endpoints.files.load("serve.yaml", ServeSettings)
    targets = [
        serve.RunTarget(gateway_application(lambda: endpoints, front), name=APPLICATION, route_prefix="/"),
        serve.RunTarget(llm_application(lambda: endpoints, front), name=LLM_APPLICATION, route_prefix=LLM_PREFIX),
    ]
    try:
        serve.start(http_options=HTTPOptions(host=front.host, port=port), grpc_options=rpc_options(front))
        # One after the other would wait for each in turn.
        serve.run_many(targets)
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"the front did not start on {front.host}:{port}: {error}", port=port) from error
    return f"http://{front.host}:{port}"


def rpc_options(front: ServeSettings) -> gRPCOptions | None:
    """What Serve's gRPC proxy is told; None leaves it off."""
    if front.rpc_port is None:
        return None
    # Reflection would tell the interface to callers without a token.
    return gRPCOptions(port=front.rpc_port, grpc_servicer_functions=list(SERVICER_FUNCTIONS), enable_reflection=False)


def gateway_application(find: Find, front: ServeSettings) -> serve.Application:
    """REST, events and health of the fleet that `find` finds, and the same over gRPC where Serve has a port for it."""

    def build() -> Any:
        return _front(find(), front)

    @serve.deployment(name="gateway", **_options(front.apps["gateway"]))
    @serve.ingress(build)
    class Gateway(RpcCalls):
        """REST, events and health of a fleet."""

    return Gateway.bind()


def _front(endpoints: Endpoints, front: ServeSettings) -> Any:
    """The routes over the stores of this fleet."""
    use_configured_redaction(endpoints.files)
    redact_logs()
    principals = load_principals(endpoints.principals_file)
    tools, budgets = make_tool_desk(endpoints), make_budget_desk(endpoints)
    desk = make_desk(endpoints)
    # Several replicas may answer: each says whose figures they are, so that their series are told apart.
    meter = KeptMeter(RayMeter(), labels={"worker": str(os.getpid())})
    parts = make_front_parts(endpoints, desk, clock=SystemClock(), figures=meter)
    app = build_gateway(desk, principals, front, tools=tools, budgets=budgets, parts=parts)
    telemetry = make_telemetry(endpoints.observability, "gateway", meter=meter)
    app.add_middleware(ObservedRequests, name="gateway", telemetry=telemetry, root_of=story_root(endpoints))
    return app


def llm_application(find: Find, front: ServeSettings) -> serve.Application:
    """The models of the fleet that `find` finds."""

    def build() -> Any:
        endpoints = find()
        use_configured_redaction(endpoints.files)
        redact_logs()
        principals, clock = load_principals(endpoints.principals_file), SystemClock()
        telemetry = make_telemetry(endpoints.observability, "llm", meter=RayMeter())
        parts = make_chat_parts(endpoints, front.chat, telemetry=telemetry)

        async def look() -> tuple[ModelFigures, ...]:
            return figures_of_routers(parts.models.stats())

        show = shown_as(model_gauges())
        reporter = make_model_reporter(endpoints, f"front:llm:{os.getpid()}", look=look, show=show)
        app = build_llm(parts.desk, principals, front, clock=clock, beside=reporter.run)
        app.add_middleware(ObservedRequests, name="llm", telemetry=telemetry)
        return app

    @serve.deployment(name="llm", **_options(front.apps["llm"]))
    @serve.ingress(build)
    class Llm:
        """The models of a fleet in OpenAI's wire format."""

    return Llm.bind()


def _options(app: ServeAppSettings) -> dict[str, Any]:
    return {
        "num_replicas": app.replicas,
        "max_ongoing_requests": app.max_ongoing_requests,
        "graceful_shutdown_timeout_s": app.graceful_shutdown_s,
        "ray_actor_options": {"num_cpus": 0},
    }


def stop_serve() -> None:
    """The HTTP front is gone; open streams were given their grace."""
    serve.shutdown()
