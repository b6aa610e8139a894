"""Each error class has exactly one exit code (docs/design/design.md, section 10)."""

from __future__ import annotations

import pytest

from fleet.cli.exit_codes import BAD_INPUT, DONE, FAILED, MISSING, WAITING, exit_code
from fleet.kernel import errors
from fleet.kernel.errors import FleetError, all_error_classes


@pytest.mark.parametrize("cls", all_error_classes(), ids=lambda c: c.__name__)
def test_every_error_class_has_a_code(cls: type[FleetError]):
    assert exit_code(cls("x")) in (BAD_INPUT, WAITING, FAILED, MISSING)


@pytest.mark.parametrize(
    ("cls", "code"),
    [
        (errors.InvalidInput, 2),
        (errors.ConfigError, 2),
        (errors.PolicyDenied, 2),
        (errors.StoryNotFound, 2),
        (errors.VersionConflict, 2),
        (errors.GateClosed, 3),
        (errors.LogCorrupted, 4),
        (errors.UnsupportedSchema, 4),
        (errors.OutcomeUnknown, 4),
        (errors.FleetError, 4),
        (errors.StoreUnavailable, 5),
        (errors.SandboxUnavailable, 5),
        (errors.ModelUnavailable, 5),
        (errors.LeaseHeld, 5),
    ],
)
def test_code_says_what_a_script_can_do_about_it(cls: type[FleetError], code: int):
    assert exit_code(cls("x")) == code


def test_codes_are_those_of_the_contract():
    assert (DONE, BAD_INPUT, WAITING, FAILED, MISSING) == (0, 2, 3, 4, 5)
