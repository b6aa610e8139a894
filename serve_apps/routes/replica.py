"""The gateway as one replica serves it: the routes over the stores of a fleet."""

from __future__ import annotations

import os

from fastapi import FastAPI

from fleet.config.settings import ServeSettings
from fleet.kernel.clock import SystemClock
from fleet.remote.meter import RayMeter
from fleet.telemetry.sinks.kept_meter import KeptMeter
from fleet.wiring.desk.desk import make_budget_desk, make_desk, make_tool_desk
from fleet.wiring.endpoints import Endpoints, load_principals
from fleet.wiring.stores.redaction import use_configured_redaction
from fleet.wiring.telemetry import make_telemetry, story_root
from serve_apps.observed import ObservedRequests
from serve_apps.parts import make_front_parts
from serve_apps.routes.gateway import build_gateway


def gateway_app(endpoints: Endpoints, front: ServeSettings) -> FastAPI:
    """The routes over the stores of this fleet."""
    use_configured_redaction(endpoints.files)
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
