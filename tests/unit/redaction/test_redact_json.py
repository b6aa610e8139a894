"""Secrets in data (CX-60, CX-70)."""

from __future__ import annotations

import pytest

from fleet.redaction.redact_json import redact_json
from tests.support.secrets import SAMPLES

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
