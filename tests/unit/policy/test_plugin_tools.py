"""Declarations of plug-ins beside those of the file (RT-69)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.kernel.errors import ConfigError
from fleet.policy.plugin_tools import plugin_ops, with_plugins
from fleet.policy.roles import load_roles
from fleet.policy.rules.config import load_policy

FILES = ConfigFiles(packaged_directory())
DECLARATION: dict[str, Any] = {"ops": {"count": {"path": "path"}}, "like": "read_workspace"}


def load(**plugins: Any) -> Any:
    return load_policy(FILES.document("policy.yaml"), roles=load_roles(FILES.document("roles.yaml")), plugins=plugins)


@pytest.mark.rule("RT-69")
def test_declaration_of_a_plugin_is_one_of_the_policy() -> None:
    policy = load(word_count=[DECLARATION])
    assert policy.capabilities["word_count.count"].declared.effect == "PURE"
    assert policy.digest != load().digest


@pytest.mark.rule("RT-69")
@pytest.mark.parametrize("name", ["files", "model"])
def test_plugin_with_the_id_of_a_tool_stops_the_start(name: str) -> None:
    with pytest.raises(ConfigError, match="a tool of this name exists"):
        load(**{name: [DECLARATION]})


@pytest.mark.rule("RT-69", "RT-20")
@pytest.mark.parametrize("declaration", [[], [{}], [{"ops": {}}], ["text"], [{"ops": ["count"]}]])
def test_plugin_without_a_declaration_stops_the_start(declaration: Any) -> None:
    with pytest.raises(ConfigError, match="declares no operation"):
        load(word_count=declaration)


def test_incomplete_declaration_is_named_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"tools\.word_count\.0\.risk"):
        load(word_count=[{"ops": {"count": {}}, "access": "read"}])


def test_document_without_tools_is_left_to_its_own_check() -> None:
    assert with_plugins({"tools": None}, {"x": [DECLARATION]}, shipped={}, source="f") == {"tools": None}
    assert plugin_ops({"x": [DECLARATION]}) == {"x": frozenset({"count"})}
