"""Ports: what the services need from the outside. Each docstring is the contract that every adapter passes."""

from fleet.ports.agents import AgentAnswer, AgentRequest, Agents, WorkKind
from fleet.ports.backlog import Backlog, HasBacklog
from fleet.ports.blobs import BlobStore
from fleet.ports.change_requests import (
    ChangeOutcome,
    ChangeRequest,
    ChangeRequests,
    CommitState,
    EndedChange,
    OpenedChange,
)
from fleet.ports.chat_model import ChatModel
from fleet.ports.checkpoints import CheckpointExport, CheckpointStore, StoredNote
from fleet.ports.clock import Clock
from fleet.ports.dead_letters import MAX_ATTEMPTS, DeadLetter, DeadLetters, Failure, LetterSource
from fleet.ports.feed import Feed, FeedGroup, FeedHint, HintDelivery
from fleet.ports.forge import Commit, Forge, StagedRepository
from fleet.ports.graph import (
    Comparison,
    Cursor,
    DecisionGraph,
    GraphChange,
    NodeChange,
    ProjectionState,
    RelationChange,
    RelationsClosed,
    Spare,
)
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
from fleet.ports.raw_log import RawLog
from fleet.ports.sandbox import Sandbox, SandboxBackend, SandboxHealth
from fleet.ports.secrets import MAX_SECRET_BYTES, SecretProvider, SecretValue
from fleet.ports.signing import Signer, Verifier
from fleet.ports.snapshots import Snapshot, SnapshotStore
from fleet.ports.witness import Witness

__all__ = [
    "MAX_APPEND_BYTES",
    "MAX_ATTEMPTS",
    "MAX_BODY_BYTES",
    "MAX_EVENTS",
    "MAX_SECRET_BYTES",
    "AgentAnswer",
    "AgentRequest",
    "Agents",
    "Answer",
    "AppendRequest",
    "Appended",
    "Backlog",
    "BlobStore",
    "ChangeOutcome",
    "ChangeRequest",
    "ChangeRequests",
    "ChatModel",
    "CheckpointExport",
    "CheckpointStore",
    "Claimed",
    "Clock",
    "Command",
    "Commit",
    "CommitState",
    "Comparison",
    "Cursor",
    "DeadLetter",
    "DeadLetters",
    "DecisionGraph",
    "Delivery",
    "Done",
    "Duplicate",
    "EndedChange",
    "EventLog",
    "Failure",
    "Feed",
    "FeedGroup",
    "FeedHint",
    "Forge",
    "GraphChange",
    "HasBacklog",
    "HintDelivery",
    "Inbox",
    "Lease",
    "LeaseStore",
    "LetterSource",
    "NodeChange",
    "OpenedChange",
    "Pack",
    "PackRequest",
    "Packs",
    "ProjectionState",
    "RawLog",
    "RelationChange",
    "RelationsClosed",
    "RunLedger",
    "Running",
    "Sandbox",
    "SandboxBackend",
    "SandboxHealth",
    "SecretProvider",
    "SecretValue",
    "Signer",
    "Snapshot",
    "SnapshotStore",
    "Spare",
    "StagedRepository",
    "StoredNote",
    "Verifier",
    "Witness",
    "WorkKind",
]
