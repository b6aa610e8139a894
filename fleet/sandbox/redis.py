"""The run ledger and the run logs on Redis."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.log.redis.connection import Script, Send, Word, call, call_together, pairs, repeat
from fleet.log.redis.keys import ledger_epoch_key, ledger_run_key, run_out_key
from fleet.log.rules import key_reused, run_fenced
from fleet.policy.runs.log_lines import LogLine
from fleet.sandbox.port import Claimed, Done, LogPage, Lost, Running

_LOOK = """
local function look(key)
  local entry = redis.call('HMGET', key, 'result', 'supervisor', 'deadline_ms', 'cancel', 'detached')
  if entry[1] then return {'DONE', entry[1]} end
  local t = redis.call('TIME')
  local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
  local detached = entry[5] or '0'
  if entry[3] and tonumber(entry[3]) > now then
    return {'RUNNING', entry[2], entry[3], entry[4] or '0', detached}
  end
  if detached == '1' then return {'LOST', entry[2], now} end
  return {'NONE', now}
end
"""

_CLAIM = Script(
    _LOOK
    + """
local run, seen_key, epoch, spec, token = KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2], ARGV[5]
local seen = tonumber(redis.call('GET', seen_key) or '0')
if epoch < seen then return {'FENCED', string.format('%d', seen)} end
local known = redis.call('HMGET', run, 'spec', 'token')
if known[1] and known[1] ~= spec then return {'OTHER', known[1]} end
local found = look(run)
redis.call('SET', seen_key, ARGV[1])
if found[1] == 'RUNNING' and known[2] == token then return {'CLAIMED'} end
if found[1] == 'RUNNING' or found[1] == 'DONE' then return found end
redis.call('HSET', run, 'spec', spec, 'epoch', ARGV[1], 'supervisor', ARGV[3], 'token', token,
  'cancel', '0', 'detached', ARGV[6], 'deadline_ms', string.format('%d', found[#found] + tonumber(ARGV[4])))
return {'CLAIMED'}
"""
)

_LOOKUP = Script(
    _LOOK
    + """
local found = look(KEYS[1])
if found[1] == 'NONE' then return {'NONE'} end
if found[1] == 'LOST' then return {'LOST', found[2]} end
return found
"""
)

_FINISH = Script("""
if redis.call('HSETNX', KEYS[1], 'result', ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], 'finished_epoch', ARGV[2], 'finished_by', ARGV[3])
end
return {redis.call('HGET', KEYS[1], 'result')}
""")

_FORGET = Script("""
local entry = redis.call('HMGET', KEYS[1], 'result', 'supervisor')
if not entry[1] and entry[2] == ARGV[1] then redis.call('DEL', KEYS[1]) end
return {'OK'}
""")

_DROP = Script("""
local entry = redis.call('HMGET', KEYS[1], 'result', 'supervisor', 'deadline_ms')
if not entry[1] and entry[2] == ARGV[1] and entry[3] == ARGV[2] then redis.call('DEL', KEYS[1]) end
return {'OK'}
""")

_RENEW = Script("""
local entry = redis.call('HMGET', KEYS[1], 'result', 'supervisor')
if entry[1] or entry[2] ~= ARGV[1] then return {'OTHER'} end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
redis.call('HSET', KEYS[1], 'deadline_ms', string.format('%d', now + tonumber(ARGV[2])))
return {'OK'}
""")

_REQUEST_CANCEL = Script(
    _LOOK
    + """
if look(KEYS[1])[1] ~= 'RUNNING' then return {'NONE'} end
redis.call('HSET', KEYS[1], 'cancel', '1')
return {'OK'}
"""
)


class RedisRunLedger:
    """Implements the port RunLedger on the server that holds the event log. Entries have no TTL."""

    def __init__(self, client: Redis, *, margin_s: float = 10.0) -> None:
        self._client = client
        self._margin_s = margin_s

    async def claim(
        self,
        key: RunKey,
        *,
        story: StoryId,
        epoch: int,
        spec: Digest,
        supervisor: str,
        ttl_s: int,
        is_detached: bool = False,
    ) -> Claimed | Running | Done:
        """Who runs the key (RC-54)."""
        # The token tells a repeat of this very call, whose reply was lost, from a second claim.
        words: list[Word] = [epoch, spec, supervisor, ttl_s * 1000, secrets.token_hex(16), int(is_detached)]
        reply = await self._run(_CLAIM, [ledger_run_key(key), ledger_epoch_key(story)], words, doing=f"claim run {key}")
        match reply:
            case ["FENCED", seen]:
                raise run_fenced(key, story=story, epoch=epoch, seen=int(seen))
            case ["OTHER", recorded]:
                raise key_reused(key, spec=spec, recorded=recorded)
            case _:
                state = _state(reply)
                return state if isinstance(state, Running | Done) else Claimed()

    async def finish(self, key: RunKey, *, epoch: int, supervisor: str, result: Digest) -> Digest:
        """The recorded result of the key: the first one stays."""
        reply = await self._run(_FINISH, [ledger_run_key(key)], [result, epoch, supervisor], doing=f"finish run {key}")
        return Digest(reply[0])

    async def lookup(self, key: RunKey) -> Running | Lost | Done | None:
        """What the ledger knows of the key; None also for one that is not detached and whose deadline has passed."""
        return _state(await self._run(_LOOKUP, [ledger_run_key(key)], [], doing=f"look up run {key}"))

    async def renew(self, key: RunKey, *, supervisor: str, ttl_s: int) -> None:
        """This supervisor's RUNNING entry has a new deadline."""
        await self._run(_RENEW, [ledger_run_key(key)], [supervisor, ttl_s * 1000], doing=f"renew run {key}")

    async def request_cancel(self, key: RunKey) -> bool:
        """Whoever runs the key finds the request at its next lookup."""
        reply = await self._run(_REQUEST_CANCEL, [ledger_run_key(key)], [], doing=f"ask for the end of run {key}")
        return reply == ["OK"]

    async def forget(self, key: RunKey, *, supervisor: str) -> None:
        """Drop this supervisor's RUNNING entry; anything else stays."""
        await self._run(_FORGET, [ledger_run_key(key)], [supervisor], doing=f"forget run {key}")

    async def drop(self, key: RunKey, found: Running) -> None:
        """Drop the RUNNING entry if it still is the one that was found."""
        words: list[Word] = [found.supervisor, found.deadline_ms]
        await self._run(_DROP, [ledger_run_key(key)], words, doing=f"drop run {key}")

    async def _run(self, script: Script, keys: list[str], words: list[Word], *, doing: str) -> list[str]:
        async def attempt(send: Send) -> Any:
            return await script.run(send, keys, words)

        reply = await repeat(self._client, attempt, doing=doing, margin_s=self._margin_s)
        return [part.decode() for part in reply]


def _state(reply: list[str]) -> Running | Lost | Done | None:
    match reply:
        case ["DONE", result]:
            return Done(result=Digest(result))
        case ["RUNNING", supervisor, deadline_ms, cancel, detached]:
            return Running(
                supervisor=supervisor,
                deadline_ms=int(deadline_ms),
                is_cancel_requested=cancel == "1",
                is_detached=detached == "1",
            )
        case ["LOST", supervisor]:
            return Lost(supervisor=supervisor)
        case _:
            return None


_TTL_S = 86_400
_BATCH = 500

# A line is entry `<n>-0`; the end of the run is entry `<last n>-1`.
_APPEND = Script("""
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local n = last[1] and tonumber(string.match(last[1][1], '^%d+')) or 0
for i = 3, #ARGV, 2 do
  if tonumber(ARGV[i]) > n then
    n = tonumber(ARGV[i])
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[i] .. '-0', 'l', ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {'OK'}
""")

_END = Script("""
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local id = last[1] and last[1][1] or '0-0'
if string.match(id, '-0$') then
  redis.call('XADD', KEYS[1], string.match(id, '^%d+') .. '-1', 'end', '1')
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return {'OK'}
""")


class RedisRunLogs:
    """Implements the port RunLogs. What a cache evicts is missed by live readers alone.

    Args:
        client: of the cache instance.
        max_lines: about how many lines of one run are kept.
        block_s: longest single wait in the server; must be below the client's timeout.
        margin_s: how long a call is repeated after a lost reply.
    """

    def __init__(self, client: Redis, *, max_lines: int = 20_000, block_s: float = 2.0, margin_s: float = 2.0) -> None:
        self._client = client
        self._max_lines = max_lines
        self._block_s = block_s
        self._margin_s = margin_s

    async def append(self, key: RunKey, lines: Sequence[LogLine]) -> None:
        """Readers see these lines; one whose number is not above the last is left out."""
        for start in range(0, len(lines), _BATCH):
            words: list[Word] = [self._max_lines, _TTL_S]
            for line in lines[start : start + _BATCH]:
                words += [line.n, line.model_dump_json()]
            await self._write(_APPEND, key, words)

    async def end(self, key: RunKey) -> None:
        """Readers see that the run is over."""
        await self._write(_END, key, [_TTL_S])

    async def read(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """At most `limit` lines with a number above `after`; waits for the first one up to `wait_s` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            page = await self._page(key, after, limit)
            left_s = deadline - loop.time()
            if page.lines or page.is_over or left_s <= 0:
                return page
            await self._wait(key, after, min(left_s, self._block_s))

    async def _page(self, key: RunKey, after: int, limit: int) -> LogPage:
        name = run_out_key(key)
        rows, newest = await call_together(
            self._client,
            [
                ("XRANGE", name, f"({after}-0", "+", "COUNT", limit + 1),
                ("XREVRANGE", name, "+", "-", "COUNT", 1),
            ],
            doing=f"read the lines of run {key}",
        )
        fields = [pairs(flat) for _, flat in rows]
        lines = tuple(LogLine.model_validate_json(f[b"l"]) for f in fields if b"l" in f)[:limit]
        last = lines[-1].n if lines else after
        number, _, mark = newest[0][0].decode().partition("-") if newest else ("0", "-", "0")
        return LogPage(lines, is_over=mark == "1" and last >= int(number))

    async def _wait(self, key: RunKey, after: int, wait_s: float) -> None:
        # BLOCK 0 would wait for ever.
        words: list[Word] = ["XREAD", "COUNT", 1, "BLOCK", max(1, int(wait_s * 1000))]
        words += ["STREAMS", run_out_key(key), f"{after}-0"]
        await call(self._client, *words, doing=f"wait for lines of run {key}")

    async def _write(self, script: Script, key: RunKey, words: list[Word]) -> None:
        async def attempt(send: Send) -> Any:
            return await script.run(send, [run_out_key(key)], words)

        await repeat(self._client, attempt, doing=f"publish lines of run {key}", margin_s=self._margin_s)
