"""How long calls wait for one of several equal servers."""

from __future__ import annotations

from collections import deque

from fleet.errors import InvalidInput

__all__ = ["mean_wait_s"]

_NEGLIGIBLE = 1e-12
_HUGE = 1e200


def mean_wait_s(*, arrivals_per_s: float, service_s: float, servers: int, together: int = 1) -> float:
    """Mean seconds that a call waits before a server takes it.

    Args:
        arrivals_per_s: calls a second, on average.
        service_s: mean seconds of one call on a server, spread exponentially.
        servers: how many there are.
        together: calls that come at the same moment (a round of a council); such rounds come independently.

    Raises:
        InvalidInput: more work comes than the servers can do, so that the queue has no mean.

    Source: the stationary state of the queue M[X]/M/c. What crosses from n calls to n + 1 balances what crosses back:
    each state follows from the `together` states before it. Waits follow from their number by Little's law.
    """
    load = arrivals_per_s * service_s
    if load >= servers:
        raise InvalidInput(
            f"{load:.3g} servers' worth of work for {servers} servers: the queue would grow for ever; add servers",
            load=load,
            servers=servers,
        )
    recent: deque[float] = deque([1.0], maxlen=together)
    total, waiting, number = 1.0, 0.0, 0
    while True:
        number += 1
        state = load / together / min(number, servers) * sum(recent)
        recent.append(state)
        total += state
        waiting += max(0, number - servers) * state
        if number > servers and state * number < _NEGLIGIBLE * total:
            return waiting / total / arrivals_per_s
        if total > _HUGE:
            total, waiting = total / _HUGE, waiting / _HUGE
            recent = deque((value / _HUGE for value in recent), maxlen=together)
