"""What whoever sent a secret is told: class, field and count, never the secret (CX-74)."""

from __future__ import annotations

import pytest

from fleet.redaction.redact_counts import RedactedField, redacted_fields
from fleet.redaction.redact_json import redact_json

TOKEN = "ghp_" + "a1B2c3D4e5" * 4


@pytest.mark.rule("CX-74")
def test_fields_and_classes_are_counted_and_secrets_not_told() -> None:
    body = {
        "title": f"Use {TOKEN} and {TOKEN}",
        "notes": ["plain", {"password": "hunter2 hunter3"}],
        "a/b": "[REDACTED:AWS] password=hunter2",
        "number": 3,
    }
    found = redacted_fields(body, redact_json(body))
    assert [(row.field, row.kind, row.count) for row in found] == [
        ("/title", "GITHUB", 2),
        ("/notes/1/password", "KEY_VALUE", 1),
        ("/a~1b", "KEY_VALUE", 1),
    ]
    assert "hunter" not in str(found)
    assert TOKEN not in str(found)


@pytest.mark.rule("CX-74")
def test_name_that_is_a_secret_is_counted_under_what_stands_in_its_place() -> None:
    body = {TOKEN: 1}
    assert redacted_fields(body, redact_json(body)) == (RedactedField("/[REDACTED:GITHUB]", "GITHUB", 1),)


def test_text_alone_is_the_root_and_nothing_secret_is_nothing() -> None:
    assert redacted_fields(TOKEN, redact_json(TOKEN)) == (RedactedField("/", "GITHUB", 1),)
    assert redacted_fields({"a": [1, "b"]}, redact_json({"a": [1, "b"]})) == ()
