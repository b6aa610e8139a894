"""The shipped config/context.yaml, and views of the sample story."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from fleet.context.scope import ContextConfig
from fleet.context.view import StoryView, milestones
from tests.support.story_events import StoryLog

CONFIG = Path(__file__).parents[2] / "config" / "context.yaml"


def context_config() -> ContextConfig:
    """config/context.yaml as shipped."""
    return ContextConfig.model_validate_json(json.dumps(yaml.safe_load(CONFIG.read_text())))


def view_of(log: StoryLog, *, summaries: Mapping[str, str] = MappingProxyType({})) -> StoryView:
    """The story as a pack is cut from it."""
    return StoryView(state=log.state, milestones=milestones(log.events, last=10), summaries=summaries)
