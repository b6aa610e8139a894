"""The groups of commands that have a module of their own."""

from __future__ import annotations

import typer

from fleet.cli.audit_app import app as audit
from fleet.cli.ceremony_app import app as ceremony
from fleet.cli.cluster import app as cluster
from fleet.cli.deploy_app import app as deploy
from fleet.cli.model_app import budget, council, models
from fleet.cli.project_app import discovery, epic, project
from fleet.cli.store_app import dlq, graph, sandbox
from fleet.cli.story_app import app as story

__all__ = ["GROUPS", "add_groups"]

GROUPS = {
    "story": story,
    "project": project,
    "epic": epic,
    "discovery": discovery,
    "ceremony": ceremony,
    "cluster": cluster,
    "deploy": deploy,
    "audit": audit,
    "graph": graph,
    "dlq": dlq,
    "sandbox": sandbox,
    "models": models,
    "budget": budget,
    "council": council,
}


def add_groups(app: typer.Typer) -> None:
    """Every group is a command of the application."""
    for name, group in GROUPS.items():
        app.add_typer(group, name=name)
