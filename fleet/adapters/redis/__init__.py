"""The stores that live in Redis: event log, leases, feed, inbox, run ledger. Redis 7.2 command set."""

from fleet.adapters.redis.connection import connect_redis
from fleet.adapters.redis.feed import RedisFeed
from fleet.adapters.redis.inbox import RedisInbox
from fleet.adapters.redis.lease import RedisLeaseStore
from fleet.adapters.redis.ledger import RedisRunLedger
from fleet.adapters.redis.log import RedisEventLog

__all__ = ["RedisEventLog", "RedisFeed", "RedisInbox", "RedisLeaseStore", "RedisRunLedger", "connect_redis"]
