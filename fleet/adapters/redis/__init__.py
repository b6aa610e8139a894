"""The stores that live in Redis: event log, leases, feed, inbox, run ledger. Redis 7.2 command set."""

from fleet.adapters.redis.blobs import MAX_BLOB_BYTES, RedisBlobStore
from fleet.adapters.redis.checkpoints import RedisCheckpointStore
from fleet.adapters.redis.connection import RedisClient, connect_redis
from fleet.adapters.redis.dead_letters import RedisDeadLetters
from fleet.adapters.redis.feed import RedisFeed
from fleet.adapters.redis.feed_group import RedisFeedGroup
from fleet.adapters.redis.inbox import RedisInbox
from fleet.adapters.redis.lease import RedisLeaseStore
from fleet.adapters.redis.ledger import RedisRunLedger
from fleet.adapters.redis.log import RedisEventLog
from fleet.adapters.redis.raw_log import RedisRawLog
from fleet.adapters.redis.snapshots import RedisSnapshotStore

__all__ = [
    "MAX_BLOB_BYTES",
    "RedisBlobStore",
    "RedisCheckpointStore",
    "RedisClient",
    "RedisDeadLetters",
    "RedisEventLog",
    "RedisFeed",
    "RedisFeedGroup",
    "RedisInbox",
    "RedisLeaseStore",
    "RedisRawLog",
    "RedisRunLedger",
    "RedisSnapshotStore",
    "connect_redis",
]
