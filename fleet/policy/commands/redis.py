"""Which Redis commands tools may send: closed lists, by what the command does (RT-60)."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.policy.commands.sql import ClassifiedStatement

READ_COMMANDS = frozenset(
    """
    GET MGET STRLEN GETRANGE GETBIT BITCOUNT BITPOS EXISTS TYPE TTL PTTL EXPIRETIME PEXPIRETIME SCAN DBSIZE PING TIME
    HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSTRLEN HSCAN HRANDFIELD
    LRANGE LINDEX LLEN LPOS SMEMBERS SISMEMBER SMISMEMBER SCARD SSCAN SRANDMEMBER SINTER SUNION SDIFF SINTERCARD
    ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZSCORE ZMSCORE ZCARD ZCOUNT ZLEXCOUNT ZRANK ZREVRANK
    ZSCAN ZRANDMEMBER ZINTER ZUNION ZDIFF
    XRANGE XREVRANGE XLEN XREAD PFCOUNT GEOPOS GEODIST GEOHASH GEOSEARCH SORT_RO
    """.split()  # noqa: SIM905 - a list of eighty quoted words reads worse
)
"""Commands that change nothing."""
_READ_PAIRS = frozenset(
    {("XINFO", "STREAM"), ("XINFO", "GROUPS"), ("XINFO", "CONSUMERS"), ("OBJECT", "ENCODING"), ("OBJECT", "IDLETIME")}
    | {("MEMORY", "USAGE")}
)
WRITE_COMMANDS = frozenset(
    """
    SET SETEX PSETEX SETNX MSET MSETNX APPEND SETRANGE SETBIT GETSET GETDEL GETEX INCR INCRBY INCRBYFLOAT DECR DECRBY
    DEL UNLINK EXPIRE PEXPIRE EXPIREAT PEXPIREAT PERSIST RENAME RENAMENX COPY TOUCH
    HSET HSETNX HMSET HDEL HINCRBY HINCRBYFLOAT LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LSET LREM LTRIM LINSERT LMOVE
    SADD SREM SPOP SMOVE ZADD ZREM ZINCRBY ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREMRANGEBYLEX ZPOPMIN ZPOPMAX
    XADD XDEL XTRIM XACK PFADD PFMERGE GEOADD
    """.split()  # noqa: SIM905 - as above
)
"""Commands that change keys which they name. Scripts and what is about the server as a whole are in no list."""


def classify_redis(command: Sequence[str]) -> ClassifiedStatement:
    """What the command does; `refused` for everything that is in neither list."""
    if not command:
        return ClassifiedStatement("refused", "there is no command")
    words = [word.upper() for word in command]
    if words[0] == "XREAD" and "BLOCK" in words[1:]:
        return ClassifiedStatement("refused", "XREAD must not block")
    if words[0] in READ_COMMANDS or tuple(words[:2]) in _READ_PAIRS:
        return ClassifiedStatement("read", "it reads only")
    if words[0] in WRITE_COMMANDS:
        return ClassifiedStatement("write", f"{words[0]} changes the database")
    return ClassifiedStatement("refused", f"{command[0][:40]!r} is in no list of commands")
