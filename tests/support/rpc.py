"""The gRPC front on a free port of this machine, and stubs of clients as `protoc` makes them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import grpc
from starlette.types import ASGIApp

from scripts import rpc as protos
from serve_apps.rpc.front import RpcFront
from serve_apps.rpc.services import add_coach, add_context, add_planning, add_sessions, add_workspace


@asynccontextmanager
async def serving_rpc(app: ASGIApp) -> AsyncGenerator[grpc.aio.Channel]:
    """A channel to a server over this application."""
    server = grpc.aio.server()
    for add in (add_planning, add_context, add_coach, add_workspace, add_sessions):
        add(RpcFront(app), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(grace=0)


def as_caller(name: str, key: int | None = None) -> tuple[tuple[str, str], ...]:
    """Metadata of a person's call."""
    named = (("authorization", f"Bearer {name}-token"),)
    return named if key is None else (*named, ("idempotency-key", f"key-number-{key}"))


def stub(service: str, channel: Any) -> Any:
    """The client of a service, compiled from its `.proto` file."""
    name = {"StoryCoach": "coach"}.get(service, service.lower())
    return getattr(_stubs(name), f"{service}Stub")(channel)


@cache
def _folder() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory(prefix="fleet-stubs-")
    protos.compile_protos(Path(folder.name), with_stubs=True)
    return folder


@cache
def _stubs(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"{name}_stubs", Path(_folder().name) / protos.FOLDER / f"{name}_pb2_grpc.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
