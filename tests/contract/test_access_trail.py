"""The contract of AccessTrail, on every adapter."""

from __future__ import annotations

import pytest

from fleet.policy.secret_grants import SecretAccess
from tests.support.stores import Stores


def access(number: int) -> SecretAccess:
    return SecretAccess(
        name="deploy-token",
        provider="vault",
        role="devops",
        tool="kubectl",
        op="apply",
        outcome="resolved",
        version=str(number),
        at_ms=number,
    )


@pytest.mark.rule("RT-65")
async def test_every_use_is_kept_and_the_newest_comes_first(stores: Stores) -> None:
    for number in range(5):
        await stores.trail.record(access(number))
    assert await stores.twin().trail.newest() == [access(n) for n in (4, 3, 2, 1, 0)]
    assert await stores.trail.newest(limit=2) == [access(4), access(3)]


async def test_empty_trail_has_no_lines(stores: Stores) -> None:
    assert await stores.trail.newest() == []
