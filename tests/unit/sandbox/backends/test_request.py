"""What no run may ask for is refused before anything is started (check S28)."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleet.kernel.errors import InvalidInput
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.backends.request import check_spec


@pytest.mark.check("S28")
@pytest.mark.parametrize(
    "fields",
    [
        {"argv": ["x"] * 1_000_000},
        {"argv": []},
        {"argv": "sh -c true"},
        {"env": {"lower": "x"}},
        {"env": {"A=B": "x"}},
        {"limits": {"overall_s": -1}},
        {"limits": {"overall_s": float("nan")}},
        {"limits": {"overall_s": float("inf")}},
        {"limits": {"overall_s": 14_401}},
        {"limits": {"memory_bytes": "1e30Gi"}},
        {"limits": {"pids": 10**9}},
        {"image": "--privileged"},
        {"mounts": [{"kind": "bind", "source": "/", "target": "/host"}]},
        {"mounts": [{"kind": "repo", "repo": "../../etc"}]},
        {"mounts": [{"kind": "blob", "blob": "sha256:" + "0" * 64, "target": "/etc/passwd"}]},
        {"tree": "../x"},
    ],
    ids=lambda fields: str(fields)[:32],
)
def test_request_that_no_schema_has_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RunSpec.model_validate({"argv": ["true"], **fields})


@pytest.mark.check("S28", "S1")
@pytest.mark.parametrize(
    "fields",
    [
        {"cwd": ".."},
        {"cwd": "/etc"},
        {"cwd": "a/../../x"},
        {"env": {"A": "x\0y"}},
        {"argv": ["x\0y"]},
        {"argv": ["x", "y" * (1 << 20)]},
        {"argv": ["x", *(["y" * 100_000] * 11)]},
        {"artifacts": ["../x"]},
        {"toolchain": "--privileged"},
    ],
    ids=lambda fields: str(fields)[:32],
)
def test_request_beyond_the_workspace_or_the_kernel_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        check_spec(RunSpec.model_validate({"argv": ["true"], **fields}))
