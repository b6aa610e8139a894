"""A secret value shows itself to `reveal` alone."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError

from fleet.kernel.errors import PolicyDenied
from fleet.secrets.port import MAX_SECRET_BYTES, SecretValue


def secret(text: str, *, name: str = "deploy-token") -> SecretValue:
    return SecretValue(text, name=name, provider="vault", version="7", ttl_s=60)


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    value: SecretValue


@given(st.text(min_size=6, max_size=40))
@settings(max_examples=100)
@pytest.mark.rule("RT-65")
def test_no_way_to_write_a_value_down_shows_it(text: str) -> None:
    value = secret(text)
    assume(text not in repr(secret("")) and text not in "Holder(value=) {'value': }")

    shown = [
        repr(value),
        str(value),
        f"{value}",
        f"{value!r}",
        repr([value]),
        repr(Holder(value=value)),
    ]

    assert not any(text in line for line in shown)
    assert value.reveal() == text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused_and_tells_what_to_do(protocol: int) -> None:
    with pytest.raises(PolicyDenied, match="secret://deploy-token") as caught:
        pickle.dumps({"deep": [secret("tr0ub4dor")]}, protocol)
    assert "tr0ub4dor" not in f"{caught.value} {caught.value.details}"


def test_json_is_refused() -> None:
    with pytest.raises(TypeError) as plain:
        json.dumps({"token": secret("tr0ub4dor")})
    with pytest.raises(PydanticSerializationError) as pydantic:
        Holder(value=secret("tr0ub4dor")).model_dump_json()
    assert "tr0ub4dor" not in f"{plain.value} {pydantic.value}"


def test_state_is_refused_and_no_dictionary_exists() -> None:
    value: Any = secret("tr0ub4dor")

    with pytest.raises(PolicyDenied):
        value.__getstate__()
    with pytest.raises(TypeError):
        vars(value)
    with pytest.raises(TypeError):
        hash(value)


def test_copies_are_the_value_itself() -> None:
    value = secret("tr0ub4dor")

    assert copy.copy(value) is value
    assert copy.deepcopy([value])[0] is value


def test_values_are_equal_by_name_and_text() -> None:
    assert secret("one") == secret("one")
    assert secret("one") != secret("two")
    assert secret("one") != secret("one", name="other")
    assert secret("one") != "one"


@pytest.mark.parametrize(
    ("text", "fits"),
    [("x", True), ("", False), ("a\0b", False), ("x" * MAX_SECRET_BYTES, True), ("\u00fc" * MAX_SECRET_BYTES, False)],
)
def test_text_fits_when_a_variable_can_hold_it(text: str, fits: bool) -> None:
    assert SecretValue.fits(text) is fits
