from __future__ import annotations

import json

import pytest

from fleet.sandbox.backends.probes import health_from, health_without_sandbox, mend_for, prepared_probe, processes_named

CHECKS = ("00", "01", "02", "13", "16", "17", "21", "25", "27", "egress", "12", "30", "33", "36")
GOOD = json.dumps(dict.fromkeys(CHECKS, ""))


def test_health_of_a_full_report_is_ok() -> None:
    health = health_from(GOOD, 7, "", 0)

    assert (health.status, health.unmet, health.mend) == ("ok", (), ())
    assert health.enforced["pids"] == "rlimit"


@pytest.mark.rule("RC-25", "RC-32")
@pytest.mark.parametrize(
    ("output", "code", "survivors", "unmet"),
    [
        (GOOD, 0, 0, "controls (check 00): exit code 0 instead of 7"),
        (GOOD, 7, 2, "kill_all (check 36): 2 processes outlived their run"),
        (json.dumps({**json.loads(GOOD), "21": "could make"}), 7, 0, "namespaces (check 21): could make"),
        (json.dumps(dict.fromkeys(CHECKS[1:], "")), 7, 0, "controls (check 00): the probe did not run"),
    ],
)  # fmt: skip
def test_health_names_each_check_that_does_not_hold(output: str, code: int, survivors: int, unmet: str) -> None:
    health = health_from(output, code, "", survivors)

    assert health.status == "degraded"
    assert health.unmet[0].startswith(unmet)
    assert len(health.mend) == len(health.unmet) == 1


def test_health_without_a_report_is_down() -> None:
    assert health_from("", 1, "bwrap: Can't mount proc", 0).status == "down"
    assert health_from("", 1, "", 0).unmet == ("sandbox: the probe ended with 1 and no report",)


@pytest.mark.parametrize(
    ("complaint", "mend"),
    [
        ("bwrap: setting up uid map: Permission denied", "AppArmor"),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "AppArmor"),
        ("bwrap: No permissions to create new namespace", "unprivileged_userns_clone"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "max_user_namespaces"),
        ("bwrap: Creating new namespace failed: No space left on device", "max_user_namespaces"),
        ("bwrap: Can't mount proc on /newroot/proc", "unmasked /proc"),
        ("/usr/bin/prlimit is missing", "util-linux"),
        ("bwrap: something new", "fleet sandbox check"),
    ],
)
def test_mend_fits_the_complaint(complaint: str, mend: str) -> None:
    assert mend in mend_for(complaint)
    assert mend in health_without_sandbox(complaint).mend[0]


def test_prepared_probe_shows_no_value_of_our_environment() -> None:
    import os

    with prepared_probe() as probe:
        given = json.loads(probe.argument)

    assert given["token"] == probe.token
    values = [v for v in os.environ.values() if len(v) > 12 and v not in given["secret_path"]]
    assert not [v for v in values if v in probe.argument and "/tmp" not in v]
    assert processes_named(probe.token) == []
