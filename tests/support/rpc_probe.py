"""gRPC through the proxy of a real Ray Serve; run in a network of its own, because that proxy listens everywhere."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import ray
from ray import serve
from ray.serve.config import HTTPOptions

from fleet.config.settings import ServeSettings
from fleet.kernel.clock import SystemClock
from serve_apps.app import rpc_options
from serve_apps.routes.gateway import build_gateway
from serve_apps.rpc.front import RpcCalls
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
    world = World(clock=SystemClock())
    # Serve builds the routes inside of a running loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, story().write_to(world.log)).result()
    return build_gateway(world.desk, REGISTRY, settings(), parts=front_parts(world))


@serve.deployment(name="gateway", ray_actor_options={"num_cpus": 0})
@serve.ingress(front_of_a_story)
class Gateway(RpcCalls):
    """REST and gRPC, as a fleet has them."""


async def asked() -> dict[str, Any]:
    """What a client hears."""
    told: dict[str, Any] = {}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{settings().rpc_port}") as channel:
        planning = stub("Planning", channel)
        one = planning_pb2.StoryRequest(story_id=STORY)
        told["state"] = (await planning.GetStory(one, metadata=ROOT)).state
        for name, metadata, request in (
            ("nobody", ROOT[1:], one),
            ("nothing", ROOT, planning_pb2.StoryRequest(story_id="st-none")),
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
    return told


def main() -> None:
    """The last line of standard output is what a client hears, as JSON."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
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
            sys.stdout.write(json.dumps(asyncio.run(asked())) + "\n")
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
