"""How the services are made known to a gRPC server; Serve imports the functions by their names."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from serve_apps.rpc.v1 import coach_pb2, context_pb2, planning_pb2, sessions_pb2, workspace_pb2

SERVICER_FUNCTIONS = tuple(
    f"{__name__}.{name}" for name in ("add_planning", "add_context", "add_coach", "add_workspace", "add_sessions")
)
"""What `grpc_servicer_functions` of Serve names."""


def add_planning(servicer: Any, server: Any) -> None:
    """The server answers the calls of service Planning."""
    _add(planning_pb2.DESCRIPTOR.services_by_name["Planning"], servicer, server)


def add_context(servicer: Any, server: Any) -> None:
    """The server answers the calls of service Context."""
    _add(context_pb2.DESCRIPTOR.services_by_name["Context"], servicer, server)


def add_coach(servicer: Any, server: Any) -> None:
    """The server answers the calls of service StoryCoach."""
    _add(coach_pb2.DESCRIPTOR.services_by_name["StoryCoach"], servicer, server)


def add_workspace(servicer: Any, server: Any) -> None:
    """The server answers the calls of service Workspace."""
    _add(workspace_pb2.DESCRIPTOR.services_by_name["Workspace"], servicer, server)


def add_sessions(servicer: Any, server: Any) -> None:
    """The server answers the calls of service Sessions."""
    _add(sessions_pb2.DESCRIPTOR.services_by_name["Sessions"], servicer, server)


def _add(service: ServiceDescriptor, servicer: Any, server: Any) -> None:
    handlers = {method.name: _handler(method, getattr(servicer, method.name)) for method in service.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    server.add_registered_method_handlers(service.full_name, handlers)


def _handler(method: MethodDescriptor, behavior: Any) -> grpc.RpcMethodHandler:
    kind = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
    return kind(
        behavior,
        # The message stays bytes until its sender is known.
        request_deserializer=None,
        response_serializer=method.output_type._concrete_class.SerializeToString,
    )
