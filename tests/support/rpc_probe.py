"""gRPC through the proxy of a real Ray Serve; run in a network of its own, because that proxy listens everywhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.config import HTTPOptions

from fleet.config.settings import PROXY_ENVIRONMENT, RPC_MESSAGE_BYTES, ServeSettings
from fleet.kernel.clock import SystemClock
from serve_apps.app import listen_on_node, rpc_options
from serve_apps.routes.gateway import build_gateway
from serve_apps.rpc.front import NoRpcCalls, RpcCalls
from serve_apps.rpc.v1 import coach_pb2, planning_pb2
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rpc import stub
from tests.support.rules import files
from tests.support.story_events import STORY, story
from tests.support.tool_front import REGISTRY

ROOT = (("authorization", "Bearer root-token"), ("application", "fleet"))


def settings() -> ServeSettings:
    """Those that are packaged, with gRPC."""
    front = files().load("serve.yaml", ServeSettings)
    return front.model_copy(update={"host": "0.0.0.0", "rpc_port": 9000})  # noqa: S104


def front_of_a_story() -> Any:
    """The routes over one story in memory."""
    listen_on_node()
    world = World(clock=SystemClock())
    # Serve builds the routes inside of a running loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, story().write_to(world.log)).result()
    return build_gateway(world.desk, REGISTRY, settings(), parts=front_parts(world))


@serve.deployment(name="gateway", ray_actor_options={"num_cpus": 0})
@serve.ingress(front_of_a_story)
class Gateway(RpcCalls):
    """REST and gRPC, as a fleet has them."""


def models() -> Any:
    """An application without gRPC."""
    listen_on_node()
    return FastAPI()


@serve.deployment(name="llm", ray_actor_options={"num_cpus": 0})
@serve.ingress(models)
class Models(NoRpcCalls):
    """The models of a fleet, which are asked over HTTP alone."""


def open_ports() -> list[int]:
    """Ports below 10,000, or of any other number as 0, on which somebody listens on every address."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = [row[1].rpartition(":") for row in rows if row[3] == "0A"]
    ports = [int(port, 16) for address, _, port in listening if not address.strip("0")]
    return sorted({port if port < 10_000 else 0 for port in ports})


async def asked() -> dict[str, Any]:
    """What a client hears."""
    told: dict[str, Any] = {}
    half_open, writer = await asyncio.open_connection("127.0.0.1", 18_000)
    writer.write(b"GET /api/health HTTP/1.1\r\nhost:")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{settings().rpc_port}") as channel:
        planning = stub("Planning", channel)
        one = planning_pb2.StoryRequest(story_id=STORY)
        told["state"] = (await planning.GetStory(one, metadata=ROOT)).state
        for name, metadata, request in (
            ("nobody", ROOT[1:], one),
            ("nothing", ROOT, planning_pb2.StoryRequest(story_id="st-none")),
            ("models", (*ROOT[:1], ("application", "llm")), one),
            ("large", ROOT, planning_pb2.StoryRequest(story_id="x" * settings().max_body_bytes)),
            ("too_large", ROOT[1:], planning_pb2.StoryRequest(story_id="x" * RPC_MESSAGE_BYTES)),
        ):
            try:
                await planning.GetStory(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                trailing = dict(error.trailing_metadata() or ())
                told[name] = [error.code().name, (error.details() or "").partition(":")[0], trailing.get("fleet-error")]
        watch = planning.WatchStory(planning_pb2.WatchStoryRequest(story_id=STORY), metadata=ROOT)
        told["events"] = [(await watch.read()).version for _ in range(5)]
        watch.cancel()
        lost = planning.WatchStory(planning_pb2.WatchStoryRequest(story_id="st-none"), metadata=ROOT)
        try:
            await lost.read()
        except grpc.aio.AioRpcError as error:
            told["lost"] = [error.code().name, (error.details() or "").partition(":")[0]]
        coach = stub("StoryCoach", channel)
        told["score"] = (await coach.ScoreStory(coach_pb2.ScoreRequest(title="A slug"), metadata=ROOT)).score
    told["open"] = open_ports()
    told["half_open"] = (await asyncio.wait_for(half_open.read(), 60)).decode().split("\r\n")[0]
    writer.close()
    return told


def main() -> None:
    """The last line of standard output is what a client hears, as JSON."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ |= PROXY_ENVIRONMENT
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
    with tempfile.TemporaryDirectory(prefix="rpc-") as folder:
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            _temp_dir=folder,
            _node_ip_address="127.0.0.1",
            object_store_memory=80_000_000,
        )
        try:
            front = settings()
            serve.start(http_options=HTTPOptions(host="127.0.0.1", port=18_000), grpc_options=rpc_options(front))
            serve.run(Gateway.bind(), name="fleet", route_prefix="/")
            serve.run(Models.bind(), name="llm", route_prefix="/v1")
            sys.stdout.write(json.dumps(asyncio.run(asked())) + "\n")
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
