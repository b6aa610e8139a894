"""Secrets in models: the one look at what is recorded (CX-60, CX-72)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.events.payload import Payload
from fleet.kernel.ids import Digest, RunKey
from fleet.redaction.redact_json import redact_json
from fleet.redaction.redact_model import redact_model
from tests.support.event_samples import samples
from tests.support.secrets import NAMED, SAMPLES

TOKEN = SAMPLES["github"].text
SHOWN = "[REDACTED:GITHUB]"
PLANTED = {**SAMPLES, **NAMED}


class Note(BaseModel):
    """As payloads are."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    text: str = Field(max_length=30)
    from_: str = Field("x", alias="from")
    parts: tuple[str, ...] = ()
    more: dict[str, str] = {}
    count: int = 0


@pytest.mark.rule("CX-60")
def test_model_comes_back_without_secrets_and_the_same_one_where_there_are_none() -> None:
    plain = Note(text="plain", parts=("a",))
    assert redact_model(plain)[0] is plain
    found, data = redact_model(Note(text="x", from_=TOKEN, parts=(TOKEN,)))
    assert found == Note(text="x", from_=SHOWN, parts=(SHOWN,))
    assert data == {"text": "x", "from": SHOWN, "parts": [SHOWN], "more": {}, "count": 0}


def test_text_that_a_placeholder_makes_too_long_loses_its_end() -> None:
    found, data = redact_model(Note(text="long text, PASSWORD=changeme x", parts=(TOKEN,), more={"a": "b"}, count=3))
    assert found.text == "long text, PASSWORD=[REDACTED:"
    assert found.parts == (SHOWN,)
    assert data == found.model_dump(mode="json", by_alias=True)


@pytest.mark.rule("CX-72")
@pytest.mark.parametrize("payload", samples().values(), ids=samples().keys())
def test_no_event_is_taken_for_a_secret(payload: Payload) -> None:
    found, data = redact_model(payload)
    assert found is payload
    assert redact_json(data) == data == payload.model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.mark.rule("CX-60")
@pytest.mark.parametrize("name", sorted(PLANTED))
def test_planted_secret_goes_out_of_every_text_field_of_every_event(name: str) -> None:
    planted = PLANTED[name]
    texts = 0
    for payload in samples().values():
        for field, value in payload.model_dump().items():
            if isinstance(value, str) and " " in value:
                redacted, _ = redact_model(payload.model_copy(update={field: f"{value}\n{planted.text}"}))
                assert planted.secret not in str(redacted.model_dump())
                texts += 1
    assert texts > 10


def _leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in JSON values something stands that is no map and no list, as keys and indexes."""
    match value:
        case dict():
            for name, item in value.items():
                yield from _leaves(item, (*at, name))
        case list():
            for number, item in enumerate(value):
                yield from _leaves(item, (*at, number))
        case _:
            yield at


def _with(value: Any, at: tuple[Any, ...], text: str) -> Any:
    if not at:
        return text
    if isinstance(value, list):
        return [_with(item, at[1:], text) if n == at[0] else item for n, item in enumerate(value)]
    return {name: _with(item, at[1:], text) if name == at[0] else item for name, item in value.items()}


@pytest.mark.rule("CX-60", "CX-61")
@pytest.mark.parametrize("payload", samples().values(), ids=samples().keys())
def test_secret_in_any_field_is_refused_by_its_form_or_taken_out(payload: Payload) -> None:
    """A field that is not looked at is closed: nothing of the catalogue can be put into it."""
    data, cls = payload.model_dump(mode="json", by_alias=True, exclude_none=True), type(payload)
    for at in _leaves(data):
        for planted in PLANTED.values():
            try:
                # An id that is a secret has no form without it, so the event is refused as a whole.
                found, shown = redact_model(cls.model_validate(_with(data, at, planted.text)))
            except ValidationError:
                continue
            assert planted.secret not in str(shown), f"{planted.text} stayed in {at}"
            assert planted.secret not in str(found)


FORMS = st.one_of(st.from_regex(cls.form, fullmatch=True).map(cls) for cls in (Digest, RunKey))
NAMES = st.sampled_from(["token_digest", "password", "api_key", "secret", "key", "request_digest", "digest"])


@pytest.mark.rule("CX-72")
@settings(max_examples=300)
@given(NAMES, FORMS, st.integers(-(2**70), 2**70))
def test_what_is_not_looked_at_would_not_be_taken_out(name: str, text: str, number: int) -> None:
    assert redact_json({"x": text, name: number}) == {"x": text, name: number}


class Open(BaseModel):
    """A model that takes what it does not name."""

    model_config = ConfigDict(extra="allow")

    digest: Digest


def test_model_that_takes_fields_without_names_is_looked_at_whole() -> None:
    found, _ = redact_model(Open.model_validate({"digest": "sha256:" + "0a" * 32, "more": TOKEN}))
    assert found.model_extra == {"more": SHOWN}
