"""Secrets in data and in models (CX-60, CX-70)."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field

from fleet.events.payload import Payload
from fleet.redaction.redact_json import redact_json, redact_model
from tests.support.event_samples import samples
from tests.support.secrets import NAMED, SAMPLES

TOKEN = SAMPLES["github"].text
SHOWN = "[REDACTED:GITHUB]"


@pytest.mark.rule("CX-60", "CX-70")
def test_every_text_is_looked_at_by_itself_and_under_its_name() -> None:
    data = {"a": [f"x {TOKEN}", {"password": "x y", "note": "x y"}], f"by {TOKEN}": 1, "n": 2, "none": None, "t": True}
    assert redact_json(data) == {
        "a": [f"x {SHOWN}", {"password": "[REDACTED:KEY_VALUE]", "note": "x y"}],
        f"by {SHOWN}": 1,
        "n": 2,
        "none": None,
        "t": True,
    }


def test_two_names_that_are_secret_keep_both_values() -> None:
    other = SAMPLES["github_pat"].text
    assert redact_json({TOKEN: 1, other: 2, "x": 3}) == {SHOWN: 1, f"{SHOWN} 2": 2, "x": 3}


def test_data_without_secrets_are_equal() -> None:
    data = {"token": "", "tokens": 5, "password": "${DB_PASSWORD}", "digest": "sha256:" + "0a" * 32}
    assert redact_json(data) == data


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
    assert redact_model(plain) is plain
    assert redact_model(Note(text="x", from_=TOKEN, parts=(TOKEN,))) == Note(text="x", from_=SHOWN, parts=(SHOWN,))


def test_text_that_a_placeholder_makes_too_long_loses_its_end() -> None:
    found = redact_model(Note(text="long text, PASSWORD=changeme x", parts=(TOKEN,), more={"a": "b"}, count=3))
    assert found.text == "long text, PASSWORD=[REDACTED:"
    assert found.parts == (SHOWN,)


@pytest.mark.rule("CX-72")
@pytest.mark.parametrize("payload", samples().values(), ids=samples().keys())
def test_no_event_is_taken_for_a_secret(payload: Payload) -> None:
    assert redact_model(payload) is payload


@pytest.mark.rule("CX-60")
@pytest.mark.parametrize("name", sorted({**SAMPLES, **NAMED}))
def test_planted_secret_goes_out_of_every_text_field_of_every_event(name: str) -> None:
    planted = {**SAMPLES, **NAMED}[name]
    texts = 0
    for payload in samples().values():
        for field, value in payload.model_dump().items():
            if isinstance(value, str) and " " in value:
                redacted = redact_model(payload.model_copy(update={field: f"{value}\n{planted.text}"}))
                assert planted.secret not in str(redacted.model_dump())
                texts += 1
    assert texts > 10
