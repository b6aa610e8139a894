"""The containment checks again, with a supervisor that is an ordinary user: no root, no dropped uid, no cgroups.

The suites run once as `nobody` in a process of their own; here every check of theirs is asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from defusedxml.ElementTree import parse

from fleet.sandbox.backends.identity import is_root
from tests.support.containment import PROPERTY, claims
from tests.support.sandbox import state_folder

ROOT = Path(__file__).resolve().parents[2]
SUITES = ("tests/contract/test_sandbox_containment.py", "tests/unit/sandbox/backends/test_request.py")
SLOW_SUITES = (
    "tests/contract/test_sandbox_bubblewrap.py",
    "tests/contract/test_sandbox_egress.py",
    "tests/contract/test_sandbox_hostile.py",
    "tests/contract/test_sandbox_running.py",
)
"""What proves nothing for an ordinary user, such as limits by cgroups, is skipped in them by name."""
NOBODY = 65_534

pytestmark = pytest.mark.skipif(not is_root(), reason="the suites themselves run as an ordinary user then")


class Outcomes(NamedTuple):
    """Names of the tests that claim one check, by how they ended."""

    passed: list[str]
    failed: list[str]


@cache
def outcomes(suites: tuple[str, ...]) -> dict[str, Outcomes]:
    interpreter = f"/usr/bin/python3.{sys.version_info.minor}"
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    env = {
        "PYTHONPATH": f"{packages}:{ROOT}",
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }

    def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (interpreter, *arguments), env=env, cwd=cwd, user=NOBODY, group=NOBODY, extra_groups=[],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    if not Path(interpreter).exists() or call("-c", "import fleet, pytest, pydantic", cwd=Path("/")).returncode != 0:
        pytest.skip("another user can reach no Python of this version with our packages")
    with state_folder() as folder:
        os.chown(folder.parent, NOBODY, NOBODY)
        report = folder.parent / "report.xml"
        plugins = ("-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "tests.support.containment")
        options = ("--noconftest", "-p", "no:cacheprovider", "-m", "check and not slow", f"--junitxml={report}")
        done = call("-m", "pytest", "-q", *plugins, *options, *suites, cwd=ROOT)
        assert report.exists(), done.stdout + done.stderr
        return read(report)


def read(report: Path) -> dict[str, Outcomes]:
    found: defaultdict[str, Outcomes] = defaultdict(lambda: Outcomes([], []))
    for case in parse(report).iter("testcase"):
        if case.find("skipped") is not None:
            continue
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        for item in case.iter("property"):
            if item.get("name") == PROPERTY:
                ended = found[item.get("value")]
                name = case.get("name")
                _ = ended.passed.append(name) if problem is None else ended.failed.append(f"{name}: {problem.text}")
    return found


def params(suites: tuple[str, ...], *marks: pytest.MarkDecorator) -> list[object]:
    claimed = sorted(claims([ROOT / suite for suite in suites]))
    return [pytest.param(suites, check, marks=marks, id=f"{check}{'-slow' if marks else ''}") for check in claimed]


@pytest.mark.timeout(600)
@pytest.mark.rule("RC-31")
@pytest.mark.parametrize(("suites", "check"), [*params(SUITES), *params(SLOW_SUITES, pytest.mark.slow)])
def test_check_holds_for_an_ordinary_user(suites: tuple[str, ...], check: str) -> None:
    ended = outcomes(suites).get(check)

    assert ended is not None, "no test of this check ran"
    assert ended.failed == []
    assert ended.passed != []
