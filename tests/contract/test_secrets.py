"""The contract of SecretProvider, on every adapter: Vault and the Kubernetes API by HTTP stand-ins."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from fleet.kernel.errors import FleetError, NotFound, PolicyDenied, StoreUnavailable
from fleet.secrets.port import MAX_SECRET_BYTES, SecretValue
from tests.support.secret_places import GUARDED, LABEL, PLACES, TTL_S, SecretPlace, leaks, open_place

VALUE = "tr0ub4dor-&-3 \u00fc\nsecond line"


@pytest.fixture
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[SecretPlace]:
    async with open_place(request.param, tmp_path) as opened:
        yield opened


every = pytest.mark.parametrize("place", PLACES, indirect=True)
guarded = pytest.mark.parametrize("place", GUARDED, indirect=True)


async def resolve(place: SecretPlace, name: str = "deploy-token") -> SecretValue:
    return await place.provider.resolve(name, as_role="devops", tool="kubectl", op="apply")


async def failing(place: SecretPlace, expected: type[FleetError], name: str = "deploy-token") -> FleetError:
    """The error of a resolve, which has to tell nothing of the value."""
    with pytest.raises(expected) as caught:
        await resolve(place, name)
    assert leaks(caught.value, "tr0ub4dor") == []
    assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)
    return caught.value


@every
@pytest.mark.rule("RT-65")
async def test_resolve_gives_the_value_with_its_name_provider_and_life(place: SecretPlace) -> None:
    place.put("deploy-token", VALUE)

    value = await resolve(place)

    assert value.reveal() == VALUE
    assert (value.name, value.provider, value.ttl_s) == ("deploy-token", LABEL, TTL_S)
    assert place.provider.label == LABEL
    assert "tr0ub4dor" not in f"{value!r}{value}"


@every
async def test_rotated_value_is_seen_at_the_next_call_under_another_version(place: SecretPlace) -> None:
    place.put("deploy-token", "first-value")
    first = await resolve(place)
    place.put("deploy-token", "second-value")

    second = await resolve(place)

    assert second.reveal() == "second-value"
    assert first.reveal() == "first-value"
    assert (first.version is None and second.version is None) or first.version != second.version


@every
async def test_version_of_an_unchanged_value_stays(place: SecretPlace) -> None:
    place.put("deploy-token", VALUE)

    assert (await resolve(place)).version == (await resolve(place)).version


@every
async def test_secrets_are_kept_apart(place: SecretPlace) -> None:
    place.put("deploy-token", "one-value")
    place.put("other", "other-value")

    values = await asyncio.gather(resolve(place), resolve(place, "other"))

    assert [value.reveal() for value in values] == ["one-value", "other-value"]


@every
@pytest.mark.parametrize("name", ["never-stored", "not-served", "../other", ""])
async def test_unknown_secret_is_not_found(place: SecretPlace, name: str) -> None:
    place.put("other", "other-value")

    error = await failing(place, NotFound, name)

    assert error.details["secret"] == name
    assert error.details["provider"] == LABEL


@every
async def test_removed_secret_is_not_found(place: SecretPlace) -> None:
    place.put("deploy-token", VALUE)
    place.put("other", "other-value")
    await resolve(place)
    place.remove("deploy-token")

    await failing(place, NotFound)


@every
@pytest.mark.parametrize(
    "text", ["", "tr0ub4dor\0", "tr0ub4dor" + "x" * MAX_SECRET_BYTES], ids=["empty", "nul", "large"]
)
async def test_text_that_cannot_be_a_value_is_refused_without_showing_it(place: SecretPlace, text: str) -> None:
    place.put("deploy-token", text)

    await failing(place, StoreUnavailable)


@every
async def test_largest_value_is_given_whole(place: SecretPlace) -> None:
    place.put("deploy-token", "x" * (MAX_SECRET_BYTES - 1000))

    assert len((await resolve(place)).reveal()) == MAX_SECRET_BYTES - 1000


@guarded
async def test_source_that_refuses_is_policy_denied(place: SecretPlace) -> None:
    place.put("deploy-token", VALUE)
    place.refuse()

    await failing(place, PolicyDenied)


@guarded
async def test_source_that_fails_is_unavailable(place: SecretPlace) -> None:
    place.put("deploy-token", VALUE)
    place.fail()

    await failing(place, StoreUnavailable)
