"""The models as one replica serves them."""

from __future__ import annotations

import os

from fastapi import FastAPI

from actors.model_gauges import model_gauges, shown_as
from fleet.config.settings import ServeSettings
from fleet.kernel.clock import SystemClock
from fleet.models.figures import ModelFigures
from fleet.models.service.model_reporter import figures_of_routers
from fleet.remote.meter import RayMeter
from fleet.wiring.desk.chat import make_chat_parts
from fleet.wiring.endpoints import Endpoints, load_principals
from fleet.wiring.models.figures import make_model_reporter
from fleet.wiring.stores.redaction import use_configured_redaction
from fleet.wiring.telemetry import make_telemetry
from serve_apps.llm.routes import build_llm
from serve_apps.observed import ObservedRequests


def llm_app(endpoints: Endpoints, front: ServeSettings) -> FastAPI:
    """The routes over the models of this fleet."""
    use_configured_redaction(endpoints.files)
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
