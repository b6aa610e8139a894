"""Live lines of runs in Redis (EV-8): one stream per run on the cache instance."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from fleet.adapters.redis.connection import Send, Word, call, call_together, pairs, repeat
from fleet.adapters.redis.keys import run_out_key
from fleet.adapters.redis.script import Script
from fleet.ids import RunKey
from fleet.ports import LogPage
from fleet.tools import LogLine

__all__ = ["RedisRunLogs"]

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
        found, newest = await call_together(
            self._client,
            [
                ("XRANGE", name, f"({after}-0", "+", "COUNT", limit + 1),
                ("XREVRANGE", name, "+", "-", "COUNT", 1),
            ],
            doing=f"read the lines of run {key}",
        )
        fields = [pairs(flat) for _, flat in found]
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
