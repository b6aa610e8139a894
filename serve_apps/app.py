"""The Serve application: one stateless deployment that builds its app inside the replica."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.config import HTTPOptions

from fleet.config import ServeSettings
from fleet.errors import ConfigError
from fleet.wiring import Endpoints, load_principals, make_desk
from serve_apps.gateway import build_gateway

__all__ = ["start_serve", "stop_serve"]

APPLICATION = "fleet"


def start_serve(endpoints: Endpoints, *, port: int) -> str:
    """The HTTP front answers; its URL. ConfigError when the port is taken."""
    front = endpoints.files.load("serve.yaml", ServeSettings)
    app = front.apps["gateway"]

    def build() -> Any:
        return build_gateway(make_desk(endpoints), load_principals(endpoints.principals_file), front)

    @serve.deployment(
        name="gateway",
        num_replicas=app.replicas,
        max_ongoing_requests=app.max_ongoing_requests,
        graceful_shutdown_timeout_s=app.graceful_shutdown_s,
        ray_actor_options={"num_cpus": 0},
    )
    @serve.ingress(build)
    class Gateway:
        """REST, events and health of a fleet."""

    try:
        serve.start(http_options=HTTPOptions(host=front.host, port=port))
        serve.run(Gateway.bind(), name=APPLICATION, route_prefix="/", _local_testing_mode=False)
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"the HTTP front did not start on {front.host}:{port}: {error}", port=port) from error
    return f"http://{front.host}:{port}"


def stop_serve() -> None:
    """The HTTP front is gone; open streams were given their grace."""
    serve.shutdown()
