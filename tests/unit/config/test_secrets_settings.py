"""config/secrets.yaml: one provider for each secret, no grant without a provider, never a value."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.secrets import SecretsSettings, VaultSecretsSettings

FILE = {"kind": "file", "label": "local", "path": "/etc/fleet/secrets", "secrets": ["forge-token"]}
VAULT = {
    "kind": "vault",
    "label": "vault",
    "url": "https://vault.example.com",
    "auth": {"kind": "kubernetes", "role": "fleet"},
    "secrets": {"deploy-token": {"path": "ci/deploy", "key": "token"}},
}
GRANT = {"secret": "deploy-token", "roles": ["devops"], "tool": "kubectl", "ops": ["apply"]}


def test_packaged_file_serves_and_grants_nothing() -> None:
    settings = ConfigFiles(packaged_directory()).load("secrets.yaml", SecretsSettings)

    assert (settings.providers, settings.grants) == ((), ())


def test_examples_of_the_packaged_file_are_valid() -> None:
    text = (packaged_directory() / "secrets.yaml").read_text()
    lines = [line for line in text.splitlines() if line not in ("providers: []", "grants: []")]
    head = next(number for number, line in enumerate(lines) if line == "# providers:")
    shown = "\n".join(line.removeprefix("# ") for line in lines[head:])

    settings = SecretsSettings.model_validate(yaml.safe_load(shown))

    assert [provider.kind for provider in settings.providers] == [
        "file", "environment", "kubernetes-mount", "kubernetes", "vault",
    ]  # fmt: skip
    assert [grant.secret for grant in settings.grants] == [
        "deploy-token", "forge-token", "db-password", "groq-api-key",
    ]  # fmt: skip


def test_provider_is_chosen_by_its_kind() -> None:
    settings = SecretsSettings.model_validate({"providers": [FILE, VAULT], "grants": [GRANT]})

    assert isinstance(settings.providers[1], VaultSecretsSettings)
    assert settings.providers[1].secrets["deploy-token"].version is None


@pytest.mark.rule("GL-18")
@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"providers": [FILE, {**VAULT, "label": "local"}]}, "two providers are called local"),
        ({"providers": [FILE, {**FILE, "label": "again"}]}, "two providers serve forge-token"),
        ({"providers": [FILE], "grants": [GRANT]}, "no provider serves 'deploy-token'"),
        ({"providers": [{**FILE, "value": "hunter2"}]}, "Extra inputs"),
        ({"providers": [{**FILE, "path": "secrets"}]}, "absolute"),
        ({"providers": [{**FILE, "secrets": ["Forge Token"]}]}, "pattern"),
        ({"providers": [{**VAULT, "mount": "../sys"}]}, "pattern"),
        ({"providers": [{**VAULT, "secrets": {"a": {"path": "ci/../../sys/raw", "key": "k"}}}]}, "pattern"),
        ({"providers": [{**VAULT, "tls_verify": False}]}, "Extra inputs"),
        ({"providers": [{**VAULT, "auth": {"kind": "token", "token": "hvs.x"}}]}, "token_file"),
        ({"life_s": 3600}, "less than or equal to 900"),
    ],
    ids=range(11),
)
def test_file_that_is_wrong_is_refused(document: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SecretsSettings.model_validate(document)
