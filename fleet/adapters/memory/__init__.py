"""In-memory twins of the ports: for tests, simulations and a first look. They pass the suites of the real adapters."""

from fleet.adapters.memory.blobs import MemoryBlobStore
from fleet.adapters.memory.chat_model import Hang, Rule, ScriptedChatModel
from fleet.adapters.memory.checkpoints import MemoryCheckpointExport, MemoryCheckpointStore
from fleet.adapters.memory.clock import MemoryClock
from fleet.adapters.memory.dead_letters import MemoryDeadLetters
from fleet.adapters.memory.feed import MemoryFeed
from fleet.adapters.memory.feed_group import MemoryFeedGroup
from fleet.adapters.memory.graph import MemoryGraph
from fleet.adapters.memory.inbox import MemoryInbox
from fleet.adapters.memory.lease import MemoryLeaseStore
from fleet.adapters.memory.ledger import MemoryRunLedger
from fleet.adapters.memory.log import MemoryEventLog
from fleet.adapters.memory.raw_log import MemoryRawLog
from fleet.adapters.memory.sandbox import MemorySandboxBackend, Program, ProgramEnd, ProgramStart, by_argv
from fleet.adapters.memory.secrets import MemorySecrets
from fleet.adapters.memory.snapshots import MemorySnapshotStore
from fleet.adapters.memory.witness import MemoryWitness

__all__ = [
    "Hang",
    "MemoryBlobStore",
    "MemoryCheckpointExport",
    "MemoryCheckpointStore",
    "MemoryClock",
    "MemoryDeadLetters",
    "MemoryEventLog",
    "MemoryFeed",
    "MemoryFeedGroup",
    "MemoryGraph",
    "MemoryInbox",
    "MemoryLeaseStore",
    "MemoryRawLog",
    "MemoryRunLedger",
    "MemorySandboxBackend",
    "MemorySecrets",
    "MemorySnapshotStore",
    "MemoryWitness",
    "Program",
    "ProgramEnd",
    "ProgramStart",
    "Rule",
    "ScriptedChatModel",
    "by_argv",
]
