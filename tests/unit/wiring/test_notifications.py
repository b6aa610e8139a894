"""Notification targets are checked before anything starts, and turned into what follows the log for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fleet.config.environment import load_settings
from fleet.config.notifications import MailTargetSettings
from fleet.kernel.errors import ConfigError
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.notifications import check_notifications
from tests.unit.wiring.test_forge import endpoints_of as fleet_in
from tests.unit.wiring.test_forge import settings_of

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
        (
            "kind: webhook",
            "kind: pigeon",
            r"notifications\.targets\.0\.plugin: 'pigeon' is no kind of the fleet's own; .*: url",
        ),
        ("    kind: webhook\n", "", r"targets\.0: 'kind' must be one of 'webhook', 'mail', or what"),
        ("https://hooks.example.com", "ftp://hooks.example.com", r"targets\.0\.webhook\.url: .*must be https://"),
        (
            "https://hooks.example.com",
            "https://user:pw@hooks.example.com",
            r"targets\.0\.webhook\.url: .*must be https://",
        ),
        ("https://hooks.example.com", "http://hooks.example.com", r"targets\.0\.webhook: .*plain http; give https"),
        ("https://hooks.example.com", "https://127.0.0.1", r"127\.0\.0\.1 is not public; list its network"),
        ("https://hooks.example.com", "https://169.254.169.254", r"metadata service"),
        ("secret://bot-key", "0123456789abcdef", r"targets\.0\.webhook\.secret: .*secret://<name>"),
        ("    secret: secret://bot-key\n", "", r"targets\.0\.webhook\.secret"),
        ("desk-bot", "Desk Bot", r"targets\.0\.webhook\.name"),
        (
            "kind: webhook",
            "kind: webhook\n    events: [story_closed]",
            r"webhook\.events\.0: .*'approval_requested'",
        ),
        ("kind: webhook", "kind: webhook\n    events: []", r"targets\.0\.webhook\.events"),
        ("kind: webhook", "kind: webhook\n    projects: [default]", r"targets\.0\.webhook\.projects\.0"),
        ("kind: webhook", "kind: webhook\n    networks: [everything]", r"targets\.0\.webhook\.networks\.0"),
        ("kind: webhook", "kind: webhook\n    timeout_s: 3600", r"targets\.0\.webhook\.timeout_s"),
        ("kind: webhook", "kind: webhook\n    retries: 3", r"targets\.0\.webhook\.retries"),
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


MAIL = """
notifications:
  targets:
  - name: po-mail
    kind: mail
    host: mail.example.com
    user: fleet
    secret: secret://bot-key
    sender: fleet@example.com
    recipients: [ana@example.com]
    desk_url: https://fleet.example.com
"""


@pytest.mark.rule("LC-80", "RT-65")
def test_mail_is_handed_in_over_tls_with_a_password_by_reference(tmp_path: Path) -> None:
    (target,) = endpoints_of(tmp_path, MAIL).notifications.targets
    assert isinstance(target, MailTargetSettings)
    assert (target.port, target.security, target.secret_name) == (587, "starttls", "bot-key")
    with pytest.raises(ConfigError, match=r"the key of notification target po-mail"):
        check_notifications(endpoints_of(tmp_path, MAIL))
    check_notifications(endpoints_of(tmp_path, MAIL, PROVIDER + GRANT))


def test_mail_server_without_a_user_needs_no_secret(tmp_path: Path) -> None:
    text = MAIL.replace("    user: fleet\n    secret: secret://bot-key\n", "")
    endpoints = endpoints_of(tmp_path, text)
    check_notifications(endpoints)
    assert endpoints.notifications.targets[0].secret_name is None


@pytest.mark.rule("GL-22", "LC-80", "RT-59", "RT-65")
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    user: fleet\n", "", "user and secret belong together"),
        ("    secret: secret://bot-key\n", "", "user and secret belong together"),
        ("secret://bot-key", "hunter2-hunter2", r"mail\.secret: .*secret://<name>"),
        ("kind: mail", "kind: mail\n    security: none", "would send the password in the clear"),
        ("kind: mail", "kind: mail\n    security: ssl3", r"mail\.security"),
        ("mail.example.com", "127.0.0.1", r"127\.0\.0\.1 is not public; list its network"),
        ("host: mail.example.com", "host: 'mail.example.com\\nx'", r"mail\.host"),
        ("sender: fleet@example.com", 'sender: "fleet@example.com\\nBcc: eve@example.com"', r"mail\.sender"),
        ("[ana@example.com]", '["ana@example.com, eve@example.com"]', r"mail\.recipients\.0"),
        ("[ana@example.com]", "[]", r"mail\.recipients"),
        ("https://fleet.example.com", "javascript:alert(1)", r"mail\.desk_url"),
        ("https://fleet.example.com", "https://fleet.example.com/#/x", r"mail\.desk_url"),
        ("kind: mail", "kind: mail\n    url: https://x.example/y", r"mail\.url"),
    ],
)
def test_wrong_mail_target_stops_the_start_with_where_and_why(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in MAIL
    with pytest.raises(ConfigError, match=says) as caught:
        settings_of(tmp_path / "config", MAIL.replace(old, new, 1))
    assert "hunter2" not in caught.value.message


def test_mail_without_tls_is_for_networks_of_ones_own(tmp_path: Path) -> None:
    text = MAIL.replace("    user: fleet\n    secret: secret://bot-key\n", "    security: none\n")
    with pytest.raises(ConfigError, match="security is none; use starttls or tls"):
        settings_of(tmp_path / "config", text)
    own = text.replace("mail.example.com", "10.1.2.3") + "    networks: [10.1.2.0/24]\n"
    assert endpoints_of(tmp_path, own).notifications.targets[0].networks == ("10.1.2.0/24",)
