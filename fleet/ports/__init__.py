"""Ports: what the services need from the outside. Each docstring is the contract that every adapter passes."""

from fleet.ports.agents import AgentAnswer, AgentRequest, Agents, WorkKind
from fleet.ports.blobs import BlobStore
from fleet.ports.chat_model import ChatModel
from fleet.ports.clock import Clock
from fleet.ports.feed import Feed, FeedHint
from fleet.ports.forge import Commit, Forge, StagedRepository
from fleet.ports.graph import Cursor, DecisionGraph, GraphChange, NodeChange, RelationChange, RelationsClosed
from fleet.ports.inbox import Answer, Command, Delivery, Inbox
from fleet.ports.lease import Lease, LeaseStore
from fleet.ports.ledger import Claimed, Done, RunLedger, Running
from fleet.ports.log import (
    MAX_APPEND_BYTES,
    MAX_BODY_BYTES,
    MAX_EVENTS,
    Appended,
    AppendRequest,
    Duplicate,
    EventLog,
)
from fleet.ports.packs import Pack, PackRequest, Packs
from fleet.ports.sandbox import Sandbox, SandboxBackend, SandboxHealth

__all__ = [
    "MAX_APPEND_BYTES",
    "MAX_BODY_BYTES",
    "MAX_EVENTS",
    "AgentAnswer",
    "AgentRequest",
    "Agents",
    "Answer",
    "AppendRequest",
    "Appended",
    "BlobStore",
    "ChatModel",
    "Claimed",
    "Clock",
    "Command",
    "Commit",
    "Cursor",
    "DecisionGraph",
    "Delivery",
    "Done",
    "Duplicate",
    "EventLog",
    "Feed",
    "FeedHint",
    "Forge",
    "GraphChange",
    "Inbox",
    "Lease",
    "LeaseStore",
    "NodeChange",
    "Pack",
    "PackRequest",
    "Packs",
    "RelationChange",
    "RelationsClosed",
    "RunLedger",
    "Running",
    "Sandbox",
    "SandboxBackend",
    "SandboxHealth",
    "StagedRepository",
    "WorkKind",
]
