"""Ports: what the services need from the outside. Each docstring is the contract that every adapter passes."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.ports.access_trail import AccessTrail
    from fleet.ports.agents import AgentAnswer, AgentRequest, Agents, PassedOver, WorkKind
    from fleet.ports.backlog import Backlog, HasBacklog
    from fleet.ports.blobs import BlobStore
    from fleet.ports.bundles import BundleStore
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
    from fleet.ports.code_facts import FactStore
    from fleet.ports.dead_letters import (
        MAX_ATTEMPTS,
        DeadLetter,
        DeadLetters,
        Failure,
        LetterSource,
        is_letter_source,
    )
    from fleet.ports.deployments import Deployments, Ended, Occupancy, Placed, Standing
    from fleet.ports.engine import (
        Engine,
        EngineInfo,
        EngineState,
        FinishedCall,
        LoadedModel,
        TokenPiece,
        TokenSource,
        UsageLog,
    )
    from fleet.ports.feed import Feed, FeedGroup, FeedHint, HintDelivery
    from fleet.ports.forge import Commit, FetchedRepository, Forge, StagedRepository
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
    from fleet.ports.ledger import Claimed, Done, Lost, RunLedger, Running
    from fleet.ports.log import (
        MAX_APPEND_BYTES,
        MAX_BODY_BYTES,
        MAX_EVENTS,
        Appended,
        AppendRequest,
        Duplicate,
        EventLog,
    )
    from fleet.ports.losses import AcceptedLoss, Losses
    from fleet.ports.model_board import ModelBoard
    from fleet.ports.notifications import (
        NoticeKind,
        Notification,
        NotificationBook,
        NotificationTarget,
        OwedNotice,
    )
    from fleet.ports.packs import CountRequest, Pack, PackActivity, PackFigureSource, PackRequest, Packs
    from fleet.ports.peers import Peers
    from fleet.ports.raw_log import RawLog
    from fleet.ports.run_logs import LogPage, RunLogs
    from fleet.ports.sandbox import LogSink, RunProgress, Sandbox, SandboxBackend, SandboxHealth
    from fleet.ports.sandbox_sessions import (
        MAX_WRITE_BYTES,
        InteractiveBackend,
        SandboxSessions,
        ServingBackend,
        SessionView,
    )
    from fleet.ports.secrets import MAX_SECRET_BYTES, SecretDelivery, SecretProvider, SecretValue
    from fleet.ports.signing import Signer, Verifier
    from fleet.ports.snapshots import Snapshot, SnapshotStore
    from fleet.ports.spending import DaySpending, SpendingHold
    from fleet.ports.telemetry import Meter, SpanSink
    from fleet.ports.tokenizers import TokenCounts, Tokenizers
    from fleet.ports.tool_host import PreviewableTool, Tool, ToolContext, ToolHost
    from fleet.ports.tool_sessions import ORIGIN_S, SESSION_IDLE_S, ToolOrigin, ToolSession, ToolSessions
    from fleet.ports.trajectory_sink import TrajectorySink, WrittenTable
    from fleet.ports.weights import FoundWeights, WeightsDraft, WeightsSource, WeightsState, WeightsStore
    from fleet.ports.witness import Witness
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "AcceptedLoss",
    "Losses",
    "CountRequest",
    "ServingBackend",
    "Deployments",
    "Ended",
    "Occupancy",
    "Placed",
    "Standing",
    "NoticeKind",
    "Notification",
    "NotificationBook",
    "NotificationTarget",
    "OwedNotice",
    "is_letter_source",
    "BundleStore",
    "TokenCounts",
    "Tokenizers",
    "MAX_APPEND_BYTES",
    "MAX_ATTEMPTS",
    "MAX_BODY_BYTES",
    "MAX_EVENTS",
    "MAX_SECRET_BYTES",
    "MAX_WRITE_BYTES",
    "SESSION_IDLE_S",
    "AccessTrail",
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
    "DaySpending",
    "DeadLetter",
    "DeadLetters",
    "DecisionGraph",
    "Delivery",
    "Done",
    "Duplicate",
    "EndedChange",
    "Engine",
    "EngineInfo",
    "EngineState",
    "EventLog",
    "Failure",
    "Feed",
    "FactStore",
    "FeedGroup",
    "FeedHint",
    "FinishedCall",
    "FetchedRepository",
    "Forge",
    "FoundWeights",
    "GraphChange",
    "HasBacklog",
    "HintDelivery",
    "Inbox",
    "InteractiveBackend",
    "Lease",
    "LeaseStore",
    "LetterSource",
    "LoadedModel",
    "LogPage",
    "LogSink",
    "Lost",
    "Meter",
    "ModelBoard",
    "NodeChange",
    "OpenedChange",
    "Pack",
    "PackActivity",
    "PackFigureSource",
    "PackRequest",
    "Packs",
    "Peers",
    "PassedOver",
    "PreviewableTool",
    "ProjectionState",
    "RawLog",
    "RelationChange",
    "RelationsClosed",
    "RunLedger",
    "RunLogs",
    "RunProgress",
    "Running",
    "Sandbox",
    "SandboxBackend",
    "SandboxHealth",
    "SandboxSessions",
    "SecretDelivery",
    "SecretProvider",
    "SecretValue",
    "SessionView",
    "Signer",
    "Snapshot",
    "SnapshotStore",
    "SpanSink",
    "SpendingHold",
    "Spare",
    "StagedRepository",
    "StoredNote",
    "TokenPiece",
    "TokenSource",
    "Tool",
    "ToolContext",
    "ToolHost",
    "ToolSession",
    "ORIGIN_S",
    "ToolOrigin",
    "ToolSessions",
    "TrajectorySink",
    "UsageLog",
    "Verifier",
    "WeightsDraft",
    "WeightsSource",
    "WeightsState",
    "WeightsStore",
    "Witness",
    "WorkKind",
    "WrittenTable",
]
