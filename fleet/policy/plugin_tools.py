"""Declarations that plug-ins bring, added to those of config/policy.yaml (RT-69)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from fleet.kernel.errors import ConfigError
from fleet.policy.capabilities import PRODUCT_OPS


def plugin_ops(plugins: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, frozenset[str]]:
    """The operations that each plug-in declares, by tool; what is no declaration declares none."""
    operations: dict[str, frozenset[str]] = {}
    for tool, declarations in plugins.items():
        ops: list[Any] = [entry.get("ops") for entry in declarations if isinstance(entry, Mapping)]  # pyright: ignore[reportUnnecessaryIsInstance]
        tables = [cast("Mapping[str, Any]", table) for table in ops if isinstance(table, Mapping)]
        operations[tool] = frozenset(op for table in tables for op in table)
    return operations


def with_plugins(
    data: Mapping[str, Any],
    plugins: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    shipped: Mapping[str, frozenset[str]],
    source: str,
) -> dict[str, Any]:
    """The policy document with the declarations of the plug-ins.

    Raises:
        ConfigError: names every plug-in without a declaration, or whose id a tool has already.
    """
    tools: Any = data.get("tools")
    if not isinstance(tools, Mapping):
        return dict(data)
    declared = cast("Mapping[str, Any]", tools)
    problems: list[str] = []
    for name, declarations in plugins.items():
        if name in declared or name in shipped or name in PRODUCT_OPS:
            problems.append(f"tool plug-in {name!r}: a tool of this name exists; rename the plug-in's")
        elif not plugin_ops({name: declarations})[name]:
            problems.append(f"tool plug-in {name!r} declares no operation; give it a full declaration")
    if problems:
        raise ConfigError(f"{source}: {'; '.join(problems)}", file=source, problems=problems)
    return {**data, "tools": {**declared, **{name: [dict(d) for d in ds] for name, ds in plugins.items()}}}
