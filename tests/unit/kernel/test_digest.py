"""Canonical JSON has one form of bytes: that of the standard encoder, whichever encoder writes it (GL-13)."""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.ids import EntityId

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(2**80), 2**80) | TEXT,
    lambda children: st.lists(children, max_size=5) | st.dictionaries(TEXT, children, max_size=5),
    max_leaves=30,
)


def standard(value: Any) -> bytes:
    """The form by definition: the bytes under which every hash on record was taken."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.rule("GL-13")
@settings(max_examples=500)
@given(VALUES)
@example({'\x00\x1f\x7f\u2028\\"/': ["\b\f\n\r\t", "é", "\U0001f600", "\uffff"]})
@example({"\U00010000": 1, "\uffff": 2, "\ue000": 3, "": 4})
@example([2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**40])
def test_bytes_are_those_of_the_standard_encoder(value: Any) -> None:
    assert canonical_json(value) == standard(value)


def test_value_that_is_deeper_than_the_fast_encoder_goes_has_the_same_bytes() -> None:
    value: Any = 7
    for _ in range(140):
        value = {"a": [value]}
    assert canonical_json(value) == standard(value)


class _Name(StrEnum):
    ONE = "one"


class _Number(IntEnum):
    TWO = 2


def test_subclasses_are_written_as_what_they_hold() -> None:
    value = {EntityId("co-one1"): (_Name.ONE, _Number.TWO, True, EntityId("st-x1"))}
    assert canonical_json(value) == b'{"co-one1":["one",2,true,"st-x1"]}'


@pytest.mark.rule("GL-12")
@pytest.mark.parametrize("value", [1.0, [0.5], {"a": {"b": float("nan")}}, (1, (2.0,))])
def test_float_is_refused_wherever_it_stands(value: Any) -> None:
    with pytest.raises(TypeError, match="no form for float: use a decimal string"):
        canonical_json(value)


@pytest.mark.parametrize("value", [b"raw", {1, 2}, {"a": object()}])
def test_value_without_a_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="no form for"):
        digest_of_json(value)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}])
def test_text_that_is_no_unicode_is_refused(value: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        canonical_json(value)
