"""One role agent over one scripted model."""

from __future__ import annotations

from pathlib import Path

import yaml

from fleet.kernel.clock import MemoryClock
from fleet.models.port import ChatModel
from fleet.models.profiles import load_models
from fleet.models.prompts.prompt import parse_prompts
from fleet.models.service.role_agent import RoleAgent
from fleet.policy.roles import load_roles
from fleet.trees.memory import MemoryBlobStore

CONFIG = Path(__file__).parents[2] / "config"


def role_agent(model: ChatModel, *, role: str = "developer") -> tuple[RoleAgent, MemoryBlobStore]:
    """The agent with the shipped prompts, and its blobs."""
    engine = {
        "engine_id": "one",
        "kind": "vllm",
        "base_url": "u",
        "model": "m",
        "unpriced": True,
        "max_context": 30_000,
    }
    chain = [{"engine_id": "one", "max_tokens": 500, "timeout_s": 60}]
    policies = load_models({"engines": [engine], "policies": {"default": {"chain": chain}}})
    paths = [*CONFIG.glob("prompts/*.md"), *CONFIG.glob("prompts/roles/*.md")]
    blobs = MemoryBlobStore()
    agent = RoleAgent(
        load_roles(yaml.safe_load((CONFIG / "roles.yaml").read_text())).role(role),
        models={"one": model},
        policies=policies,
        prompts=parse_prompts({path.relative_to(CONFIG).as_posix(): path.read_text() for path in paths}),
        blobs=blobs,
        clock=MemoryClock(),
    )
    return agent, blobs
