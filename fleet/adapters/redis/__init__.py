"""The stores that live in Redis: event log, leases, feed, inbox, run ledger. Redis 7.2 command set."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.adapters.redis.access_trail import RedisAccessTrail
    from fleet.adapters.redis.blobs import MAX_BLOB_BYTES, RedisBlobStore
    from fleet.adapters.redis.bundles import RedisBundleStore
    from fleet.adapters.redis.checkpoints import RedisCheckpointStore
    from fleet.adapters.redis.connection import RedisClient, connect_redis
    from fleet.adapters.redis.dead_letters import RedisDeadLetters
    from fleet.adapters.redis.feed import RedisFeed
    from fleet.adapters.redis.feed_group import RedisFeedGroup
    from fleet.adapters.redis.inbox import RedisInbox
    from fleet.adapters.redis.lease import RedisLeaseStore
    from fleet.adapters.redis.ledger import RedisRunLedger
    from fleet.adapters.redis.log import RedisEventLog
    from fleet.adapters.redis.model_board import RedisModelBoard
    from fleet.adapters.redis.notifications import RedisNotificationBook
    from fleet.adapters.redis.raw_log import RedisRawLog
    from fleet.adapters.redis.run_logs import RedisRunLogs
    from fleet.adapters.redis.snapshots import RedisSnapshotStore
    from fleet.adapters.redis.spending import RedisDaySpending
    from fleet.adapters.redis.tool_sessions import RedisToolSessions
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "RedisBundleStore",
    "MAX_BLOB_BYTES",
    "RedisAccessTrail",
    "RedisBlobStore",
    "RedisCheckpointStore",
    "RedisDaySpending",
    "RedisClient",
    "RedisDeadLetters",
    "RedisEventLog",
    "RedisFeed",
    "RedisFeedGroup",
    "RedisInbox",
    "RedisLeaseStore",
    "RedisModelBoard",
    "RedisNotificationBook",
    "RedisRawLog",
    "RedisRunLedger",
    "RedisRunLogs",
    "RedisSnapshotStore",
    "RedisToolSessions",
    "connect_redis",
]
