"""Section `toolchains` of config/policy.yaml."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fleet.policy.runs.toolchains import DEFAULT_TOOLCHAINS, ToolchainConfig


@pytest.mark.rule("RC-34")
def test_default_is_one_toolchain_per_language_of_what_the_system_has() -> None:
    assert {name: config.language for name, config in DEFAULT_TOOLCHAINS.items()} == {
        name: name for name in ("python", "node", "go", "rust")
    }
    assert not any(config.folder for config in DEFAULT_TOOLCHAINS.values())


@pytest.mark.parametrize(
    "data",
    [
        {"language": "cobol"},
        {"language": "go", "folder": "go"},
        {"language": "go", "folder": "/opt/go/"},
        {"language": "go", "folder": "/"},
        {"language": "python", "folder": "/opt/python"},
        {"language": "go", "version": "1.19"},
        {},
    ],
)
def test_toolchain_outside_of_its_form_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ToolchainConfig.model_validate(data)


def test_folder_is_absolute() -> None:
    assert ToolchainConfig.model_validate({"language": "go", "folder": "/opt/go-1.22"}).folder == "/opt/go-1.22"
