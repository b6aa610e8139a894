"""Caps of one replica for each principal: requests per minute, and answers open at once (AP-9)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fleet.config.settings import RateSettings
from fleet.kernel.clock import Clock
from fleet.kernel.errors import RateLimited
from fleet.kernel.ids import Principal


@dataclass(slots=True)
class _Allowance:
    """Requests that may come at once; it fills up again evenly."""

    left: float
    at_ms: int


@dataclass
class PrincipalRates:
    """Counts what each known principal asks of this process; there are no more entries than principals."""

    settings: RateSettings
    clock: Clock
    _allowances: dict[Principal, _Allowance] = field(default_factory=dict[Principal, _Allowance])
    _open: Counter[Principal] = field(default_factory=Counter[Principal])

    def count(self, who: Principal) -> None:
        """The request is counted; RateLimited with `retry_after_s` when there were too many in the last minute."""
        most = self.settings.requests_per_minute
        now_ms = self.clock.monotonic_ms()
        allowance = self._allowances.setdefault(who, _Allowance(most, now_ms))
        allowance.left = min(most, allowance.left + (now_ms - allowance.at_ms) * most / 60_000)
        allowance.at_ms = now_ms
        if allowance.left < 1:
            wait_s = math.ceil((1 - allowance.left) * 60 / most)
            raise RateLimited(
                f"{who} may send {most} requests a minute; come again in {wait_s} s", limit=most, retry_after_s=wait_s
            )
        allowance.left -= 1

    @contextmanager
    def one_more(self, who: Principal) -> Generator[None]:
        """An answer is open for as long as the block runs; RateLimited when the principal has too many."""
        if self._open[who] >= self.settings.streams:
            raise RateLimited(
                f"{who} has {self.settings.streams} answers open at once; wait for one to end",
                limit=self.settings.streams,
                retry_after_s=1,
            )
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
