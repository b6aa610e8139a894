"""Where actors go: labels of nodes, placement groups of engines, interpreters and variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray.util import get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.context import ContextShell
from actors.council import CouncilShell
from actors.engine import EngineShell
from actors.notary import NotaryShell
from actors.options import COMMON
from actors.projector import ProjectorShell
from actors.role import RoleShell
from actors.sandbox import SandboxShell
from fleet.config.settings import ActorKind, has_node
from fleet.models.engine_config import ActorEngine
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.models.engines import engine_environment_of
from fleet.wiring.roster import PlannedActor

_SHELLS: Mapping[ActorKind, Any] = {
    "council": CouncilShell,
    "role": RoleShell,
    "context": ContextShell,
    "sandbox": SandboxShell,
    "projector": ProjectorShell,
    "notary": NotaryShell,
    "engine": EngineShell,
}


def placed(actor: PlannedActor, endpoints: Endpoints) -> Any:
    """The actor of this name, which comes into being as soon as a node has what it wants."""
    options: dict[str, Any] = {**COMMON, "name": actor.name}
    if actor.labels:
        options["label_selector"] = dict(actor.labels)
    if actor.engine is not None:
        options |= _options_of_engine(actor, actor.engine, endpoints)
    return ray.remote(_SHELLS[actor.kind]).options(**options).remote(actor.name, endpoints)


def is_placeable(actor: PlannedActor) -> bool:
    """Whether a node that is alive has the labels that the actor wants."""
    if not actor.labels:
        return True
    return has_node(actor.labels, [dict(node["Labels"]) for node in ray.nodes() if node["Alive"]])


def release(name: str) -> None:
    """The room that was held for this actor is free."""
    try:
        remove_placement_group(get_placement_group(name))
    except ValueError:
        return  # it never had any


def _options_of_engine(actor: PlannedActor, engine: ActorEngine, endpoints: Endpoints) -> dict[str, Any]:
    runtime: dict[str, Any] = {"env_vars": dict(engine_environment_of(engine))}
    if endpoints.models.python is not None:
        runtime["py_executable"] = str(endpoints.models.python)
    options: dict[str, Any] = {"num_cpus": engine.cpus, "num_gpus": engine.gpus, "runtime_env": runtime}
    # One bundle: a library that spreads over GPUs by processes of its own needs all of them on one node.
    if bundle := {key: float(value) for key, value in (("GPU", engine.gpus), ("CPU", engine.cpus)) if value}:
        strategy = PlacementGroupSchedulingStrategy(_group(actor, bundle), placement_group_bundle_index=0)
        # The group has the labels; Ray takes no selector beside it.
        options |= {"scheduling_strategy": strategy, "label_selector": None}
    return options


def _group(actor: PlannedActor, bundle: dict[str, float]) -> Any:
    try:
        return get_placement_group(actor.name)
    except ValueError:
        labels: Any = [dict(actor.labels)] if actor.labels else None
        return placement_group(
            [bundle], strategy="STRICT_PACK", name=actor.name, lifetime="detached", bundle_label_selector=labels
        )
