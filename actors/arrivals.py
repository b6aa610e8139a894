"""Wait until actors answer, whoever else starts them at the same time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import ray
from ray.exceptions import RayError

from actors.placement import is_placeable, placed
from fleet.kernel.errors import StoreUnavailable
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.roster import PlannedActor

Progress = Callable[[str, str], None]
"""Told the name of an actor and its state."""

_PATIENCE_S = 5.0
"""An engine, or an actor for whose labels there is no node, is waited for no longer than this."""
_LOOK_S = 0.5
_AGAIN_S = 0.2
_MOST_DEATHS = 5


class End(Protocol):
    """Ends the actors of these names."""

    def __call__(self, names: Iterable[str], *, drain: bool = True) -> None:
        """They are gone."""
        ...


class Arrivals:
    """The actors that were asked how they are and have not answered yet."""

    def __init__(self, endpoints: Endpoints, progress: Progress, *, end: End, found: set[str]) -> None:
        self._endpoints, self._progress, self._end = endpoints, progress, end
        self._found = found
        """Actors that were there before and are not known yet to have these settings."""
        self._asked: dict[Any, PlannedActor] = {}
        self._deaths = Counter[str]()
        self._since = time.monotonic()

    def await_all(self, planned: Iterable[PlannedActor], *, timeout_s: float) -> None:
        """Each has answered, or waits for a node. Raises StoreUnavailable as `boot`."""
        for actor in planned:
            self._ask(actor)
        while self._asked:
            answers, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=_LOOK_S)
            for answer in answers:
                self._hear(answer)
            passed_s = time.monotonic() - self._since
            if passed_s > _PATIENCE_S:
                self._leave_waiting()
            if passed_s > timeout_s and self._asked:
                self._give_up(timeout_s)

    def _ask(self, actor: PlannedActor) -> None:
        self._asked[placed(actor, self._endpoints).health.remote()] = actor

    def _hear(self, answer: Any) -> None:
        actor = self._asked.pop(answer)
        try:
            health = ray.get(answer)
        except RayError as error:
            return self._ask_again(actor, error)
        if health["code"] == self._endpoints.code_digest:
            return self._progress(actor.name, health["state"])
        # A detached actor keeps the code and the settings it was born with; Ray hands it out unchanged.
        self._end([actor.name])
        return self._ask(actor)

    def _ask_again(self, actor: PlannedActor, error: RayError) -> None:
        """Another process has ended it to make it anew, or it cannot live."""
        self._deaths[actor.name] += 1
        if self._deaths[actor.name] > _MOST_DEATHS:
            why = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            raise StoreUnavailable(f"actor {actor.name} dies each time it starts: {why.strip()}", actor=actor.name)
        time.sleep(_AGAIN_S)
        self._ask(actor)

    def _leave_waiting(self) -> None:
        lost = {answer for answer, actor in self._asked.items() if not is_placeable(actor)}
        # An older one may wait for what older settings asked for. It has done nothing yet, so nothing is lost.
        self._replace([answer for answer in lost if self._asked[answer].name in self._found])
        for answer, actor in list(self._asked.items()):
            if actor.name not in self._found and (answer in lost or actor.engine is not None):
                del self._asked[answer]
                self._progress(actor.name, actor.waiting)

    def _give_up(self, timeout_s: float) -> None:
        silent = [answer for answer, actor in self._asked.items() if actor.name in self._found]
        if not silent:
            names = sorted(actor.name for actor in self._asked.values())
            raise StoreUnavailable(
                f"actors {', '.join(names)} did not start in {timeout_s:g} s; see the actor logs", actors=names
            )
        self._replace(silent)
        self._since = time.monotonic()

    def _replace(self, answers: Sequence[Any]) -> None:
        actors = [self._asked.pop(answer) for answer in answers]
        self._end([actor.name for actor in actors], drain=False)
        for actor in actors:
            self._found.discard(actor.name)
            self._ask(actor)
