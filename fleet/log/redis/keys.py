"""Names of keys (EV-1..EV-10). The hash tag `{pNN}` keeps all keys of one stream in one slot."""

from __future__ import annotations

from zlib import crc32

from fleet.events.budget import BudgetScope
from fleet.kernel.ids import CommandId, Digest, EntityId, RunKey, StoryId, StreamId

PARTITIONS = tuple(f"{number:02d}" for number in range(16))
"""The digits NN of every partition."""


def _partition(name: str) -> str:
    return PARTITIONS[crc32(name.encode()) % 16]


def partition_of(stream: StreamId) -> str:
    """NN of a stream: `platform:main` is in 00 (EV-2), any other where its CRC-32 puts it."""
    return "00" if stream == "platform:main" else _partition(stream)


def stream_key(stream: StreamId, part: str) -> str:
    """A key of one stream: its `log`, `head`, `lease`, `cmds` or `snap` (EV-1..EV-6)."""
    return f"fleet:{{p{partition_of(stream)}}}:{stream}:{part}"


def open_key(partition: str) -> str:
    """The set of open streams of a partition (EV-7)."""
    return f"fleet:{{p{partition}}}:open"


def streams_key(partition: str) -> str:
    """The set of all streams of a partition that have events."""
    return f"fleet:{{p{partition}}}:streams"


def refused_key(partition: str) -> str:
    """The hash of streams of a partition that take no appends, with the reasons (EV-19)."""
    return f"fleet:{{p{partition}}}:refused"


def blob_key(digest: Digest) -> str:
    """The bytes of one digest, in the partition of its first hexadecimal digit."""
    return f"fleet:{{p{PARTITIONS[int(digest.hex[0], 16)]}}}:blob:{digest.hex}"


def feed_key(partition: str) -> str:
    """The stream of hints of a partition (EV-7)."""
    return f"fleet:{{p{partition}}}:feed"


def commands_key(partition: str) -> str:
    """The stream of inbound commands of a partition (EV-7)."""
    return f"fleet:{{p{partition}}}:commands"


def dlq_key(partition: str) -> str:
    """The stream of parked hints and commands of a partition (EV-7)."""
    return f"fleet:{{p{partition}}}:dlq"


def letter_key(partition: str, letter_id: str) -> str:
    """Failed attempts at one piece of work, and its entry in the dlq once it is parked (EV-22)."""
    return f"fleet:{{p{partition}}}:dlq:{letter_id}"


def retried_key(partition: str, token: str) -> str:
    """That one call of `retry` was carried out, for as long as it may be repeated."""
    return f"fleet:{{p{partition}}}:dlq:retried:{token}"


def reply_key(command_id: CommandId) -> str:
    """The answer of a command, on the cache instance (EV-10)."""
    return f"fleet:{{p{_partition(command_id)}}}:reply:{command_id}"


def run_out_key(key: RunKey) -> str:
    """The live lines of one run, on the cache instance (EV-8)."""
    return f"fleet:{{p{_partition(key)}}}:run:{key}:out"


def model_board_key(reporter: str = "") -> str:
    """What one process says of the models that it calls, on the cache instance; without a name, who said something."""
    return f"fleet:{{p00}}:model-board{f':{reporter}' if reporter else ''}"


def tool_session_key(session: EntityId) -> str:
    """One tool session, on the cache instance (RT-68)."""
    return f"fleet:{{p{_partition(session)}}}:tool-session:{session}"


def tool_origin_key(entity: EntityId) -> str:
    """To which story a session or run belongs, on the cache instance (RT-68)."""
    return f"fleet:{{p{_partition(entity)}}}:tool-origin:{entity}"


def bundle_key(story_id: StoryId, version: int, hash: Digest) -> str:
    """A bundle that is kept for a while, on the cache instance (CX-43)."""
    return f"fleet:{{p{_partition(story_id)}}}:bundle:{story_id}:{version}:{hash}"


def secret_accesses_key() -> str:
    """The stream of audit lines, one for each use of a secret (RT-65)."""
    return "fleet:{p00}:secrets:accesses"


def notices_looked_key(target: str) -> str:
    """The hash of versions up to which each stream was looked through for one notification target (LC-80)."""
    return f"fleet:{{p00}}:notices:{target}:looked"


def notices_owed_key(target: str) -> str:
    """The sorted set of what that target has not been told yet."""
    return f"fleet:{{p00}}:notices:{target}:owed"


# The claim script reads a run and its story together, so the whole ledger shares one slot.
def ledger_run_key(key: RunKey) -> str:
    """The ledger's entry of one run (RC-54)."""
    return f"fleet:{{p00}}:ledger:run:{key}"


def ledger_epoch_key(story: StoryId) -> str:
    """The highest epoch that the ledger has seen for a story (RC-54)."""
    return f"fleet:{{p00}}:ledger:epoch:{story}"


# One reservation counts in several scopes at once, so all of the day's spending shares one slot.
def spending_day_key(scope: BudgetScope, day: str) -> str:
    """What one scope spent and reserved on one day (MB-20)."""
    return f"fleet:{{p00}}:spending:{day}:{scope.kind}:{scope.id}"


def spending_open_key(story: StoryId) -> str:
    """The reservations of one story that are not settled (MB-23)."""
    return f"fleet:{{p00}}:spending:open:{story}"


def spending_settled_key(story: StoryId) -> str:
    """The ids of those that are."""
    return f"fleet:{{p00}}:spending:settled:{story}"
