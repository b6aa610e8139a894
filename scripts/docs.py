"""Write docs/configuration.md from the settings models; `--check` only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from fleet.config.files import packaged_directory
from fleet.config.reference import settings_reference

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
_INTRO = """# Configuration

This page is made by `scripts/docs.py` from the settings models; do not edit it.

A value is looked up in this order: the `FLEET_*` variable, the file of your own directory (`FLEET_CONFIG`), the
packaged file, the default. A file of your directory replaces the packaged file of the same name as a whole. All of it
is checked before anything starts: an unknown key, variable or file stops the start with a line that says where and why.

## Settings

"""
_MODELS = """
## Models

Engines stand in `models.yaml` ([your own model](own-model.md)). These variables replace what the file says:

| variable | replaces |
|---|---|
"""
_FILES = """
## All files

The packaged files are commented; copy the one that you want to change into your directory.

| file | holds |
|---|---|
"""
_PURPOSES = {
    "coach.yaml": "weights, limits and word lists of the readiness score",
    "context.yaml": "which role sees what in which phase, token budgets, redaction",
    "council.yaml": "sizes, quorum and budgets of councils",
    "fleet.yaml": "the settings above",
    "fsm.yaml": "lifecycles of stories and tasks, gates, approvals ([your own](lifecycles.md))",
    "models.yaml": "engines, which role uses which, budgets",
    "planning.yaml": "task derivation, checkpoints, estimates, ceremonies",
    "policy.yaml": "what tools may do",
    "rigor.yaml": "levels L0 to L3: weights, thresholds, gates",
    "roles.yaml": "roles, their tools, personas and prompts",
    "secrets.yaml": "where secrets are, who may use them",
    "serve.yaml": "the HTTP front",
}


def page() -> str:
    """The whole page."""
    return _INTRO + settings_reference() + _MODELS + _model_rows() + _FILES + _file_rows()


def model_variables() -> dict[str, str]:
    """Variable -> what it replaces, from the engines of models.yaml."""
    engines = yaml.safe_load((packaged_directory() / "models.yaml").read_text())["engines"]
    meanings = {"base_url_env": "address", "model_env": "model name", "api_key_env": "API key"}
    return {
        engine[key]: f"{meaning} of engine `{engine['engine_id']}`"
        for engine in engines
        for key, meaning in meanings.items()
        if key in engine
    }


def _model_rows() -> str:
    return "".join(f"| `{variable}` | {meaning} |\n" for variable, meaning in model_variables().items())


def _file_rows() -> str:
    names = sorted(path.name for path in packaged_directory().glob("*.yaml"))
    return "".join(f"| `{name}` | {_PURPOSES[name]} |\n" for name in names) + "| `prompts/*.md` | prompts |\n"


def main(arguments: list[str]) -> int:
    """Write the page, or say that it is out of date."""
    if "--check" not in arguments:
        PAGE.write_text(page())
        return 0
    if PAGE.exists() and PAGE.read_text() == page():
        return 0
    sys.stderr.write("docs/configuration.md is out of date: run `python scripts/docs.py`\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
