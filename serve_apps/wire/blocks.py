"""The three blocks of what a role is told, from the configuration in force (CX-22)."""

from __future__ import annotations

from fastapi import Request

from fleet.desk.context.pack_blocks import PackBlocks, pack_blocks
from serve_apps.routes.in_force import ConfigInForce


def blocks_of(request: Request, text: str, role: str, language: str) -> PackBlocks | None:
    """The blocks around the text; None where this front has no configuration in force, or it does not know the role."""
    config: ConfigInForce | None = request.app.state.config
    if config is None or role not in config.roles.roles:
        return None
    role_config = config.roles.roles[role]
    return pack_blocks(text, role=role_config, persona=config.personas.get(role_config.prompt, ""), language=language)
