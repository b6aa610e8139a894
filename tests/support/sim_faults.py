"""Faults drawn from a seed: which calls go wrong, who dies, who stands still, whose clock jumps."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from tests.support.faulty_ports import Fault
from tests.support.simulation import Process, SimLoop


@dataclass(frozen=True)
class Mix:
    """How likely each fault is in one run, per call; drawn anew for each seed, so that runs differ in kind too."""

    crash: float = 0.0
    lost: float = 0.0
    unavailable: float = 0.0
    freeze: float = 0.0
    slow: float = 0.0

    @classmethod
    def drawn(cls, chance: random.Random) -> Mix:
        """Each kind is there in two runs of three, in one of three strengths."""

        def rate(weakest: float) -> float:
            return weakest * chance.choice((1, 3, 8)) if chance.random() < 0.66 else 0.0

        return cls(crash=rate(0.0012), lost=rate(0.004), unavailable=rate(0.003), freeze=rate(0.0008), slow=rate(0.004))


_TAKES_S = {"agents": (0.2, 2.5)}


class RandomFaults:
    """`Faults` from a seed. They stop at `until_s`, and for good once `calm` was called; `list` holds every one.

    A process whose name begins with `client` never dies: it stands for people, who come again.
    """

    def __init__(self, loop: SimLoop, seed: int | str, *, until_s: float, ttl_s: int, most: int = 40) -> None:
        self._loop, self._until_s, self._ttl_s, self._most = loop, until_s, ttl_s, most
        self.chance = random.Random(f"faults/{seed}")
        self.mix = Mix.drawn(self.chance)
        self.seen: Counter[str] = Counter()
        self.list: list[str] = []
        self._cut: dict[Process, float] = {}
        self._deaths_left = self.chance.choice((4, 8, 16)) if self.chance.random() < 0.08 else 0
        """How often starting a run kills the shard, in the few runs in which it does."""

    @property
    def is_over(self) -> bool:
        """Whether nothing goes wrong any more."""
        return self._loop.time() >= self._until_s or len(self.list) >= self._most

    def note(self, what: str) -> None:
        """One more fault was injected."""
        self.list.append(f"{self._loop.time():9.3f} s  {what}")
        self._loop.trace.add(self.list[-1])

    def cut_off(self, process: Process, seconds: float) -> None:
        """No call of the process arrives for so long."""
        self._cut[process] = self._loop.time() + seconds
        self.note(f"{process.name}: cut off for {seconds:.1f} s")

    def at(self, process: Process, port: str, op: str) -> Fault | None:
        """What goes wrong with this call."""
        draw = self.chance.random()
        if self._cut.get(process, 0.0) > self._loop.time():
            return Fault.UNAVAILABLE
        if self.is_over:
            return None
        fault = self._of(process, draw)
        if self._deaths_left and (port, op) == ("sandbox", "run"):
            self._deaths_left -= 1
            self.seen["run that kills the shard"] += 1
            fault = Fault.CRASH_AFTER
        if fault is None:
            return None
        if fault in (Fault.FREEZE_BEFORE, Fault.FREEZE_AFTER):
            seconds = self.chance.choice((1.5, self._ttl_s * 0.8, self._ttl_s * 1.5, self._ttl_s * 2.5))
            process.freeze(seconds)
        self.note(f"{process.name}: {fault} of {port}.{op}")
        return fault

    def _of(self, process: Process, draw: float) -> Fault | None:
        mix, is_mortal = self.mix, not process.name.startswith("client")
        if draw < mix.lost:
            return Fault.LOST_REPLY
        draw -= mix.lost
        if draw < mix.unavailable:
            return Fault.UNAVAILABLE
        draw -= mix.unavailable
        if draw < mix.crash and is_mortal:
            return self.chance.choice((Fault.CRASH_BEFORE, Fault.CRASH_AFTER))
        draw -= mix.crash
        if 0 <= draw < mix.freeze and is_mortal:
            return self.chance.choice((Fault.FREEZE_BEFORE, Fault.FREEZE_AFTER))
        return None

    def delays(self, process: Process, port: str) -> tuple[float, float]:
        """Often none, else some milliseconds; seconds for a model and for the call that is unlucky."""
        chance = self.chance
        if port in _TAKES_S:
            return chance.uniform(*_TAKES_S[port]), 0.001
        draw = chance.random()
        go, back = 0.02 * draw if draw < 0.5 else 0.0, 0.01 * draw if draw > 0.75 else 0.0
        if self.mix.slow and not self.is_over and chance.random() < self.mix.slow:
            self.seen["slow call"] += 1
            (go, back) = (chance.uniform(1, 8), back) if chance.random() < 0.5 else (go, chance.uniform(1, 8))
        return go, back


class OneFault(RandomFaults):
    """The k-th call of a shard or a sandbox (from 0) meets this fault, and no other call does; calls take no time.

    `calls` names every call, `fired` the one that was struck: None when the story was over before.
    """

    def __init__(self, loop: SimLoop, k: int, fault: Fault | None) -> None:
        super().__init__(loop, 0, until_s=0.0, ttl_s=15)
        self._k, self._fault = k, fault
        self.calls: list[str] = []
        self.fired: str | None = None

    def at(self, process: Process, port: str, op: str) -> Fault | None:
        """The fault at the k-th call."""
        if not process.name.startswith(("council", "sandbox")):
            return None
        self.calls.append(f"{port}.{op}")
        if len(self.calls) - 1 != self._k or self._fault is None:
            return None
        self.fired = f"{port}.{op}"
        self.note(f"{process.name}: {self._fault} of {port}.{op}, call {self._k}")
        return self._fault

    def delays(self, process: Process, port: str) -> tuple[float, float]:
        """No time passes."""
        return 0.0, 0.0
