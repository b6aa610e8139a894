"""What this process of the front counted, for Prometheus: at the root, to hosts of listed networks alone (AP-96)."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from fastapi import APIRouter, Request, Response

from fleet.config.settings import ServeSettings
from fleet.kernel.errors import NotFound, PolicyDenied

metrics_router = APIRouter()

_TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class Figures(Protocol):
    """What a process counted."""

    def text(self) -> str:
        """All of it, as Prometheus reads it."""
        ...


@metrics_router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """The figures of the process that answers; other processes are asked through Ray's own agents (docs/metrics.md)."""
    settings: ServeSettings = request.app.state.settings
    figures: Figures | None = request.app.state.figures
    _require_listed(request, settings)
    if figures is None:
        raise NotFound("this front keeps no figures")
    return Response(figures.text(), media_type=_TEXT_FORMAT, headers={"Cache-Control": "no-store"})


def _require_listed(request: Request, settings: ServeSettings) -> None:
    """Returns for a host of a listed network; PolicyDenied for any other, and for one that a proxy speaks for."""
    if any(name in request.headers for name in _FORWARDED):
        # What such a header says can be made up, and the proxy's own address says nothing about who asks.
        raise PolicyDenied("metrics are not told through a proxy", rule_id="AP-96")
    host = request.client.host if request.client else ""
    if not _is_listed(host, settings.metrics_networks):
        raise PolicyDenied("metrics are told to hosts of `metrics_networks` alone (serve.yaml)", rule_id="AP-96")


def _is_listed(host: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in ip_network(network) for network in networks)
