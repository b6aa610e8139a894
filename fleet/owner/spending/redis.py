"""What all stories spend per day, in Redis beside the event log: reserved and settled by one script each (MB-23)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from redis.asyncio import Redis

from fleet.events.budget import BudgetScope
from fleet.kernel.ids import StoryId
from fleet.log.redis.connection import Script, Send, Word, call, pairs, repeat
from fleet.log.redis.keys import spending_day_key, spending_open_key, spending_settled_key
from fleet.models.routing.budget import QUANTITIES, BudgetLimits, BudgetTotals, Spend
from fleet.owner.spending.port import SpendingHold
from fleet.owner.spending.rules import KEPT_S, day_is_full

_HOLD = TypeAdapter(SpendingHold)

# KEYS: open, settled, one hash per scope. ARGV: id, hold, seconds kept, n quantities, n names, n needs, and n limits
# for each scope, -1 where there is none. Lua has no rollback: every check comes before the first write.
_RESERVE = Script("""
local id, n = ARGV[1], tonumber(ARGV[4])
if redis.call('HEXISTS', KEYS[1], id) == 1 or redis.call('SISMEMBER', KEYS[2], id) == 1 then return {'KNOWN'} end
for scope = 1, #KEYS - 2 do
  for q = 1, n do
    local need, limit = tonumber(ARGV[4 + n + q]), tonumber(ARGV[4 + n + scope * n + q])
    if limit >= 0 and need > 0 then
      local had = redis.call('HMGET', KEYS[2 + scope], 's:' .. ARGV[4 + q], 'r:' .. ARGV[4 + q])
      local used = tonumber(had[1] or '0') + tonumber(had[2] or '0')
      if used + need > limit then
        return {'FULL', tostring(scope), ARGV[4 + q], string.format('%d', limit), string.format('%d', used),
          string.format('%d', need)}
      end
    end
  end
end
for scope = 1, #KEYS - 2 do
  for q = 1, n do
    if tonumber(ARGV[4 + n + q]) > 0 then
      redis.call('HINCRBY', KEYS[2 + scope], 'r:' .. ARGV[4 + q], ARGV[4 + n + q])
    end
  end
  redis.call('EXPIRE', KEYS[2 + scope], ARGV[3])
end
redis.call('HSET', KEYS[1], id, ARGV[2])
return {'OK'}
""")

# KEYS: open, settled, one hash per scope. ARGV: id, seconds kept, n quantities, n names, n used, and the day and each
# scope as the caller knows them: where the hold itself says otherwise it comes back, and nothing is written.
_SETTLE = Script("""
local id, n = ARGV[1], tonumber(ARGV[3])
local raw = redis.call('HGET', KEYS[1], id)
if not raw then return {'KNOWN'} end
local hold = cjson.decode(raw)
local is_same = hold.day == ARGV[4 + 2 * n] and #hold.scopes == #KEYS - 2
for scope = 1, is_same and #hold.scopes or 0 do
  is_same = is_same and hold.scopes[scope].kind .. ':' .. hold.scopes[scope].id == ARGV[4 + 2 * n + scope]
end
if not is_same then return {'OTHER', raw} end
for scope = 1, #KEYS - 2 do
  for q = 1, n do
    local held, used = hold.need[ARGV[3 + q]], tonumber(ARGV[3 + n + q])
    if held > 0 then redis.call('HINCRBY', KEYS[2 + scope], 'r:' .. ARGV[3 + q], string.format('%d', -held)) end
    if used > 0 then redis.call('HINCRBY', KEYS[2 + scope], 's:' .. ARGV[3 + q], string.format('%d', used)) end
  end
  redis.call('EXPIRE', KEYS[2 + scope], ARGV[2])
end
redis.call('HDEL', KEYS[1], id)
redis.call('SADD', KEYS[2], id)
redis.call('EXPIRE', KEYS[2], ARGV[2])
return {'OK'}
""")

# KEYS: one hash per scope.
_TOTALS = Script("""
local found = {}
for scope = 1, #KEYS do found[scope] = redis.call('HGETALL', KEYS[scope]) end
return found
""")


class RedisDaySpending:
    """Implements the port DaySpending.

    Args:
        client: of the log instance: what was reserved must not be lost with a cache.
        margin_s: how long a call is repeated after a lost reply.
    """

    def __init__(self, client: Redis, *, margin_s: float = 5.0) -> None:
        self._client = client
        self._margin_s = margin_s

    async def reserve(self, hold: SpendingHold, *, limits: Mapping[BudgetScope, BudgetLimits]) -> None:
        """The hold counts in all its scopes, or in none."""
        bounds = [limits.get(scope, BudgetLimits()) for scope in hold.scopes]
        words: list[Word] = [hold.hold_id, _HOLD.dump_json(hold), KEPT_S, len(QUANTITIES), *QUANTITIES]
        words += [hold.need.of(name) for name in QUANTITIES]
        for bound in bounds:
            words += [-1 if (limit := bound.of(name)) is None else limit for name in QUANTITIES]
        reply = await self._run(_RESERVE, hold, words, doing=f"reserve budget for {hold.hold_id}")
        if reply[0] == "FULL":
            scope, (quantity, limit, used, need) = hold.scopes[int(reply[1]) - 1], reply[2:6]
            raise day_is_full(scope, quantity=quantity, limit=int(limit), used=int(used), need=int(need))

    async def settle(self, hold: SpendingHold, actual: Spend) -> bool:
        """What was really used has replaced the hold."""
        reply = await self._settle(hold, actual)
        if reply[0] == "OTHER":
            reply = await self._settle(_HOLD.validate_json(reply[1]), actual)
        return reply[0] == "OK"

    async def _settle(self, hold: SpendingHold, actual: Spend) -> list[str]:
        words: list[Word] = [hold.hold_id, KEPT_S, len(QUANTITIES), *QUANTITIES]
        words += [actual.of(name) for name in QUANTITIES]
        words += [hold.day, *(f"{scope.kind}:{scope.id}" for scope in hold.scopes)]
        return await self._run(_SETTLE, hold, words, doing=f"settle the budget of {hold.hold_id}")

    async def totals(self, scopes: Sequence[BudgetScope], day: str) -> tuple[BudgetTotals, ...]:
        """What each of the scopes has spent and reserved on that day."""
        keys = [spending_day_key(scope, day) for scope in scopes]

        async def attempt(send: Send) -> Any:
            return await _TOTALS.run(send, keys, ())

        doing = f"read the budgets of {', '.join(scope.id for scope in scopes)}"
        reply = await repeat(self._client, attempt, doing=doing, margin_s=self._margin_s)
        return tuple(_totals(flat) for flat in reply)

    async def open_holds(self, story_id: StoryId) -> list[SpendingHold]:
        """The reservations of the story that nobody settled."""
        flat = await call(
            self._client, "HGETALL", spending_open_key(story_id), doing=f"read the reservations of {story_id}"
        )
        return [_HOLD.validate_json(value) for _, value in sorted(pairs(flat).items())]

    async def _run(self, script: Script, hold: SpendingHold, words: Sequence[Word], *, doing: str) -> list[str]:
        keys = [spending_open_key(hold.story_id), spending_settled_key(hold.story_id)]
        keys += [spending_day_key(scope, hold.day) for scope in hold.scopes]

        async def attempt(send: Send) -> Any:
            return await script.run(send, keys, words)

        reply = await repeat(self._client, attempt, doing=doing, margin_s=self._margin_s)
        return [part.decode() for part in reply]


def _totals(flat: Any) -> BudgetTotals:
    fields = {name.decode(): int(value) for name, value in pairs(flat).items()}
    return BudgetTotals(spent=_spend(fields, "s"), reserved=_spend(fields, "r"))


def _spend(fields: Mapping[str, int], prefix: str) -> Spend:
    return Spend(**{name: fields.get(f"{prefix}:{name}", 0) for name in QUANTITIES})
