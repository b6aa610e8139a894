"""The gRPC front: the planning, context, coach and workspace services over the same routes as REST."""

from serve_apps.rpc.front import RpcCalls, RpcFront
from serve_apps.rpc.services import SERVICER_FUNCTIONS

__all__ = ["SERVICER_FUNCTIONS", "RpcCalls", "RpcFront"]
