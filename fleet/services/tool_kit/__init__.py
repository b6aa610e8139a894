"""Tools that need nothing but a sandbox and blobs, and what every tool is built from."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.services.tool_kit.commands import CommandTool
    from fleet.services.tool_kit.files import FilesTool
    from fleet.services.tool_kit.git import GitTool
    from fleet.services.tool_kit.parts import SecretResolver, ToolFactory, ToolParts, ToolPlugin
    from fleet.services.tool_kit.runs import limits_of, outcome_of, printed, run_key, run_once
    from fleet.services.tool_kit.search import SearchTool
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "CommandTool",
    "FilesTool",
    "GitTool",
    "SearchTool",
    "SecretResolver",
    "ToolFactory",
    "ToolParts",
    "ToolPlugin",
    "limits_of",
    "outcome_of",
    "printed",
    "run_key",
    "run_once",
]
