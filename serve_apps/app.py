"""The Serve applications: stateless deployments, each of which builds its app inside the replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

from fleet.config.settings import ServeAppSettings, ServeSettings
from fleet.kernel.collector import all_alive
from fleet.kernel.errors import ConfigError
from fleet.wiring.endpoints import Endpoints
from serve_apps.llm.address import LLM_PREFIX
from serve_apps.rpc.front import NoRpcCalls, RpcCalls
from serve_apps.rpc.services import SERVICER_FUNCTIONS

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
        listen_on_node()
        # Imported in the replica: who describes the deployments to Serve needs none of the routes.
        with all_alive():
            from serve_apps.routes.replica import gateway_app

        return gateway_app(find(), front)

    @serve.deployment(name="gateway", **_options(front.apps["gateway"]))
    @serve.ingress(build)
    class Gateway(RpcCalls):
        """REST, events and health of a fleet."""

    return Gateway.bind()


def llm_application(find: Find, front: ServeSettings) -> serve.Application:
    """The models of the fleet that `find` finds."""

    def build() -> Any:
        listen_on_node()
        with all_alive():
            from serve_apps.llm.replica import llm_app

        return llm_app(find(), front)

    @serve.deployment(name="llm", **_options(front.apps["llm"]))
    @serve.ingress(build)
    class Llm(NoRpcCalls):
        """The models of a fleet in OpenAI's wire format."""

    return Llm.bind()


def listen_on_node() -> None:
    """Binds what other replicas ask of this process to the address of its node alone.

    By itself it listens on every address of the machine; whoever asks takes the node's.
    """
    # Imported in the replica, which has it already.
    from ray.serve._private import replica

    bind: Callable[[Any, str], int] = replica.add_port_to_grpc_server  # pyright: ignore[reportPrivateImportUsage]
    node = ray.util.get_node_ip_address()

    def on_node(server: Any, address: str) -> int:
        return bind(server, address.replace("[::]", f"[{node}]" if ":" in node else node))

    replica.add_port_to_grpc_server = on_node  # pyright: ignore[reportPrivateImportUsage]


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
