"""The local cluster: Ray, embedded stores and their supervisor on one machine."""

from cluster.local.arcadedb import ArcadeDb
from cluster.local.detach import spawn_detached
from cluster.local.doctor import Check, ExtraCheck, doctor
from cluster.local.identity import ProcessIdentity
from cluster.local.preflight import check_rpc_port
from cluster.local.process import Child, Launch, free_port, spawn
from cluster.local.ray_head import NAMESPACE, RayAddress, RayHead, ray_environment
from cluster.local.record import Addresses, RunningFleet, find_running, stop_running
from cluster.local.service import EmbeddedService
from cluster.local.status import MemoryReport, PartHealth, ProcessMemory, check_parts, memory_report
from cluster.local.supervisor import Hooks, LocalFleet, NoHooks, Progress, State, run_until_stopped, supervised
from cluster.local.valkey import StoreKind, Valkey

__all__ = [
    "NAMESPACE",
    "Addresses",
    "ArcadeDb",
    "Check",
    "Child",
    "EmbeddedService",
    "ExtraCheck",
    "Hooks",
    "Launch",
    "LocalFleet",
    "MemoryReport",
    "NoHooks",
    "PartHealth",
    "ProcessIdentity",
    "ProcessMemory",
    "Progress",
    "RayAddress",
    "RayHead",
    "RunningFleet",
    "State",
    "StoreKind",
    "Valkey",
    "check_parts",
    "check_rpc_port",
    "doctor",
    "find_running",
    "free_port",
    "memory_report",
    "ray_environment",
    "run_until_stopped",
    "spawn",
    "spawn_detached",
    "stop_running",
    "supervised",
]
