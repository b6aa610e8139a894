"""Secrets in source text are counted by class."""

from __future__ import annotations

import time

import pytest

from fleet.redaction.redact import redact
from fleet.redaction.secrets import find_secrets

# Put together here, so that no scanner takes the samples themselves for secrets.
SAMPLES = [
    ("PRIVATE_KEY", "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE"),
    ("PRIVATE_KEY", "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----"),
    ("PRIVATE_KEY", "AGE-SECRET-KEY-1" + "Q" * 30),
    ("AWS", "id = AKIA" + "ABCDEFGHIJKLMNOP"),
    ("GITHUB", "ghp_" + "a1B2" * 9),
    ("GITHUB", "github_pat_" + "a1B2" * 8),
    ("GITLAB", "glpat-" + "a1B2" * 5),
    ("SLACK", "xoxb-" + "123456789012-abc"),
    ("PROVIDER", "sk-ant-" + "a1B2" * 8),
    ("PROVIDER", "hf_" + "a1B2" * 8),
    ("URL_CREDENTIALS", "redis://user:" + "s3cretvalue@host:6379"),
    ("KEY_VALUE", 'DB_PASSWORD = "hunter2' + '99"'),
    ("KEY_VALUE", '{"api_key": "abc123' + 'def456"}'),
    ("KEY_VALUE", "secret: 'change" + "me'"),
]


@pytest.mark.rule("RG-15", "CX-74")
@pytest.mark.parametrize(("name", "text"), SAMPLES)
def test_find_secrets_names_the_class(name: str, text: str) -> None:
    assert find_secrets(text) == [name]


@pytest.mark.parametrize(
    "text",
    [
        "password = get_password()",
        'password = ""',
        'token: str = "access_token"',
        'token_type = "bearer token 2"',
        'api_key = "<your-key-1>"',
        'api_key = "${API_KEY_1}"',
        'password = "example-password-1"',
        "sha256:" + "0" * 64,
        "https://example.org/path",
        "postgres://{user}:{password}@host",
        "def secret_santa(): ...",
    ],
)
def test_find_secrets_leaves_ordinary_code_alone(text: str) -> None:
    assert find_secrets(text) == []


def test_find_secrets_counts_each_place_once_in_order() -> None:
    key = "ghp_" + "a1B2" * 9
    assert find_secrets(f'token = "{key}"\npassword = "pass' + 'w0rd"') == ["GITHUB", "KEY_VALUE"]


@pytest.mark.parametrize("text", ["password" * 40_000, "sk-" * 100_000, "a.b-" * 80_000 + "token", "http://" * 50_000])
def test_find_secrets_takes_linear_time(text: str) -> None:
    started = time.process_time()
    find_secrets(text)
    assert time.process_time() - started < 5


@pytest.mark.rule("CX-60", "CX-61")
@pytest.mark.parametrize(("name", "text"), SAMPLES)
def test_redacted_text_names_the_class_and_holds_no_secret(name: str, text: str) -> None:
    redacted = redact(f"before\n{text}\n").text
    assert f"[REDACTED:{name}]" in redacted
    assert redacted.startswith("before\n")
    assert redact(redacted).text == redacted
    assert [found for found in find_secrets(redacted) if found != "URL_CREDENTIALS"] == []


@pytest.mark.rule("CX-62", "CX-63")
def test_redaction_takes_a_whole_key_and_only_the_user_of_an_address() -> None:
    begin, end = "-----BEGIN " + "PRIVATE KEY-----", "-----END " + "PRIVATE KEY-----"
    assert redact(f"a\n{begin}\nMIIE\n{end}\nb").text == "a\n[REDACTED:PRIVATE_KEY]\nb"
    address = "redis://user:" + "s3cretvalue@host:6379/0"
    assert redact(f"at {address}").text == "at redis://[REDACTED:URL_CREDENTIALS]@host:6379/0"


def test_redaction_of_two_secrets_on_one_line_takes_both() -> None:
    keys = ["ghp_" + "a1B2" * 9, "glpat-" + "a1B2" * 5]
    assert redact(" and ".join(keys)).text == "[REDACTED:GITHUB] and [REDACTED:GITLAB]"


@pytest.mark.rule("CX-72")
def test_redaction_leaves_ordinary_text_as_it_is() -> None:
    text = "password = get_password()\nsha256:" + "0" * 64
    assert redact(text).text == text
