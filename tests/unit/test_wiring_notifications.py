"""Notification targets are checked before anything starts, and turned into what follows the log for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.config import load_settings
from fleet.errors import ConfigError
from fleet.wiring import Endpoints, check_notifications
from tests.unit.test_wiring_forge import endpoints_of as fleet_in
from tests.unit.test_wiring_forge import settings_of

TARGET = """
notifications:
  targets:
  - name: desk-bot
    kind: webhook
    url: https://hooks.example.com/T0K3N
    secret: secret://bot-key
"""
PROVIDER = "providers: [{kind: environment, label: env, prefix: CI_SECRET_, secrets: [bot-key]}]\n"
GRANT = "grants: [{secret: bot-key, roles: [devops], tool: notifications, ops: [send]}]\n"


def endpoints_of(folder: Path, text: str = TARGET, secrets: str = "") -> Endpoints:
    """A fleet with these settings and secrets."""
    found = fleet_in(folder, None, secrets)
    return replace(found, notifications=settings_of(folder / "config", text).notifications)


def test_fleet_as_shipped_tells_nobody(tmp_path: Path) -> None:
    endpoints = endpoints_of(tmp_path, "{}\n")
    check_notifications(endpoints)
    assert endpoints.notifications.targets == ()


@pytest.mark.rule("LC-80", "RT-65")
def test_key_has_to_be_at_a_provider_and_granted_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no provider has secret 'bot-key', the key of notification target desk-bot"):
        check_notifications(endpoints_of(tmp_path))
    grant = r"grant it: \{secret: bot-key, roles: \[devops\], tool: notifications, ops: \[send\]\}"
    with pytest.raises(ConfigError, match=grant):
        check_notifications(endpoints_of(tmp_path, secrets=PROVIDER))
    check_notifications(endpoints_of(tmp_path, secrets=PROVIDER + GRANT))


def test_certificates_have_to_be_there(tmp_path: Path) -> None:
    text = TARGET + f"    ca_file: {tmp_path}/none.pem\n"
    with pytest.raises(ConfigError, match=r"desk-bot: ca_file .*none\.pem is no file"):
        check_notifications(endpoints_of(tmp_path, text, PROVIDER + GRANT))


@pytest.mark.rule("GL-22", "LC-80", "RT-59")
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("kind: webhook", "kind: pigeon", r"notifications\.targets\.0\.kind: .*'webhook'"),
        ("    kind: webhook\n", "", r"targets\.0\.kind"),
        ("https://hooks.example.com", "ftp://hooks.example.com", r"targets\.0\.url: .*must be https://"),
        ("https://hooks.example.com", "https://user:pw@hooks.example.com", r"targets\.0\.url: .*must be https://"),
        ("https://hooks.example.com", "http://hooks.example.com", r"targets\.0: .*plain http; give https"),
        ("https://hooks.example.com", "https://127.0.0.1", r"127\.0\.0\.1 is not public; list its network"),
        ("https://hooks.example.com", "https://169.254.169.254", r"metadata service"),
        ("secret://bot-key", "0123456789abcdef", r"targets\.0\.secret: .*secret://<name>"),
        ("    secret: secret://bot-key\n", "", r"targets\.0\.secret"),
        ("desk-bot", "Desk Bot", r"targets\.0\.name"),
        (
            "kind: webhook",
            "kind: webhook\n    events: [story_closed]",
            r"events\.0: .*'approval_requested'",
        ),
        ("kind: webhook", "kind: webhook\n    events: []", r"targets\.0\.events"),
        ("kind: webhook", "kind: webhook\n    projects: [default]", r"targets\.0\.projects\.0"),
        ("kind: webhook", "kind: webhook\n    networks: [everything]", r"targets\.0\.networks\.0"),
        ("kind: webhook", "kind: webhook\n    timeout_s: 3600", r"targets\.0\.timeout_s"),
        ("kind: webhook", "kind: webhook\n    retries: 3", r"targets\.0\.retries"),
    ],
)
def test_wrong_target_stops_the_start_with_where_and_why(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TARGET
    with pytest.raises(ConfigError, match=says) as caught:
        settings_of(tmp_path / "config", TARGET.replace(old, new))
    assert "fleet.yaml" in caught.value.message
    assert "T0K3N" not in caught.value.message


def test_names_are_given_once(tmp_path: Path) -> None:
    twice = TARGET + TARGET.split("targets:\n")[1]
    with pytest.raises(ConfigError, match="desk-bot more than once"):
        settings_of(tmp_path / "config", twice)


def test_own_network_may_be_told_over_plain_http(tmp_path: Path) -> None:
    text = TARGET.replace("https://hooks.example.com", "http://127.0.0.1:8080") + "    networks: [127.0.0.0/8]\n"
    (target,) = endpoints_of(tmp_path, text).notifications.targets
    assert target.networks == ("127.0.0.0/8",)


def test_targets_may_be_given_as_a_variable(tmp_path: Path) -> None:
    text = "[{name: a, kind: webhook, url: 'https://x.example/y', secret: 'secret://bot-key'}]"
    found = load_settings({"HOME": str(tmp_path), "FLEET_NOTIFICATIONS_TARGETS": text})
    assert [target.name for target in found.notifications.targets] == ["a"]
