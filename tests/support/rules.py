"""The packaged definitions, as the product loads them."""

from __future__ import annotations

import json
from functools import cache

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.owner.journal.steps import StepPolicy
from fleet.policy.catalogue import TOOL_OPS
from fleet.policy.roles import load_roles
from fleet.policy.rules.config import load_policy
from fleet.story.lifecycle import FsmConfig


@cache
def files() -> ConfigFiles:
    """The packaged config files."""
    return ConfigFiles(packaged_directory())


@cache
def fsm() -> FsmConfig:
    """config/fsm.yaml."""
    return files().load("fsm.yaml", FsmConfig)


_DEPLOYS = {
    "deploy": [
        {
            "ops": {"apply": {}, "release": {}},
            "access": "write",
            "scope": "external",
            "side_effects": "irreversible",
            "effect": "UNSAFE",
            "risk": "medium",
            "approval": "by_rule",
            "idempotency": "none",
            "timeout_s": 300,
            "output_limit_kb": 64,
        }
    ]
}


@cache
def step_policy(*more_rules: str, namespaces: tuple[str, ...] = (), clusters: tuple[str, ...] = ()) -> StepPolicy:
    """The packaged policy, and a tool `deploy` of UNSAFE operations that the product's own steps may use.

    Args:
        more_rules: as JSON.
        namespaces: listed ones, `<environment>/<namespace>`.
        clusters: environments that have one.
    """
    document = files().document("policy.yaml")
    rules = [
        *document["rules"],
        {"id": "deploys", "effect": "allow", "origin": "product", "roles": ["devops"], "calls": ["deploy"]},
        *(json.loads(rule) for rule in more_rules),
    ]
    policy = load_policy(
        {
            **document,
            "targets": {
                **document["targets"],
                "namespaces": namespaces,
                "clusters": {
                    name: {"context": name, "kubeconfig": f"secret://{name}", "server": f"{name}.example"}
                    for name in clusters
                },
            },
            "tools": {**document["tools"], **_DEPLOYS},
            "rules": rules,
        },
        roles=load_roles(files().document("roles.yaml")),
        tool_ops={**TOOL_OPS, "deploy": frozenset({"apply", "release"})},
    )
    return StepPolicy(policy, fsm())
