"""In-memory twins of the ports: for tests, simulations and a first look. They pass the suites of the real adapters."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.adapters.memory.access_trail import MemoryAccessTrail
    from fleet.adapters.memory.blobs import MemoryBlobStore
    from fleet.adapters.memory.bundles import MemoryBundleStore
    from fleet.adapters.memory.chat_model import Hang, Rule, ScriptedChatModel
    from fleet.adapters.memory.checkpoints import MemoryCheckpointExport, MemoryCheckpointStore
    from fleet.adapters.memory.clock import MemoryClock
    from fleet.adapters.memory.code_facts import MemoryFactStore
    from fleet.adapters.memory.dead_letters import MemoryDeadLetters
    from fleet.adapters.memory.deployments import MemoryDeployments
    from fleet.adapters.memory.engine import BlockCache, FakeTokens, MemoryTokenSource, memory_engine
    from fleet.adapters.memory.feed import MemoryFeed
    from fleet.adapters.memory.feed_group import MemoryFeedGroup
    from fleet.adapters.memory.graph import MemoryGraph
    from fleet.adapters.memory.inbox import MemoryInbox
    from fleet.adapters.memory.lease import MemoryLeaseStore
    from fleet.adapters.memory.ledger import MemoryRunLedger
    from fleet.adapters.memory.log import MemoryEventLog
    from fleet.adapters.memory.model_board import MemoryModelBoard
    from fleet.adapters.memory.notifications import MemoryNotificationBook, MemoryNotificationTarget
    from fleet.adapters.memory.peers import MemoryPeers
    from fleet.adapters.memory.raw_log import MemoryRawLog
    from fleet.adapters.memory.run_logs import MemoryRunLogs
    from fleet.adapters.memory.sandbox import MemorySandboxBackend, Program, ProgramEnd, ProgramStart, by_argv
    from fleet.adapters.memory.sandbox_sessions import Conversation, MemoryInteractiveBackend, MemoryTerminal
    from fleet.adapters.memory.secrets import MemorySecrets
    from fleet.adapters.memory.snapshots import MemorySnapshotStore
    from fleet.adapters.memory.spending import MemoryDaySpending
    from fleet.adapters.memory.telemetry import MemoryMeter, MemorySpans, NoMeter
    from fleet.adapters.memory.tokenizers import MemoryTokenizers
    from fleet.adapters.memory.tool_host import MemoryToolHost, ScriptedTool
    from fleet.adapters.memory.tool_sessions import MemoryToolSessions
    from fleet.adapters.memory.trajectory_sink import MemoryTrajectorySink
    from fleet.adapters.memory.virtual_time import in_virtual_time, settled
    from fleet.adapters.memory.weights import MemoryWeightsSource, MemoryWeightsStore
    from fleet.adapters.memory.witness import MemoryWitness
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "MemoryDeployments",
    "MemoryBundleStore",
    "MemoryTokenizers",
    "BlockCache",
    "Conversation",
    "FakeTokens",
    "Hang",
    "MemoryAccessTrail",
    "MemoryBlobStore",
    "MemoryCheckpointExport",
    "MemoryCheckpointStore",
    "MemoryClock",
    "MemoryDaySpending",
    "MemoryDeadLetters",
    "MemoryEventLog",
    "MemoryFactStore",
    "MemoryFeed",
    "MemoryFeedGroup",
    "MemoryGraph",
    "MemoryInbox",
    "MemoryInteractiveBackend",
    "MemoryLeaseStore",
    "MemoryMeter",
    "MemoryModelBoard",
    "MemoryNotificationBook",
    "MemoryNotificationTarget",
    "MemoryPeers",
    "MemoryRawLog",
    "MemoryRunLedger",
    "MemoryRunLogs",
    "MemorySandboxBackend",
    "MemorySecrets",
    "MemorySnapshotStore",
    "MemorySpans",
    "MemoryTerminal",
    "MemoryTokenSource",
    "MemoryToolHost",
    "MemoryToolSessions",
    "MemoryTrajectorySink",
    "MemoryWeightsSource",
    "MemoryWeightsStore",
    "MemoryWitness",
    "NoMeter",
    "Program",
    "ProgramEnd",
    "ProgramStart",
    "Rule",
    "ScriptedChatModel",
    "ScriptedTool",
    "by_argv",
    "in_virtual_time",
    "memory_engine",
    "settled",
]
