"""The configuration in force over HTTP: engines, policies of models, roles; never a secret (AP-93).

Each view lists what it shows, so that a new field of a file is not told to everybody before somebody thought of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request

from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import Digest
from fleet.models.engine_config import ActorEngine, EngineConfig, HttpEngine, PluginEngine, Price, RecordedEngine
from fleet.models.profiles import ModelsConfig, Policy
from fleet.models.routing.rate import RateCap
from fleet.policy.roles import Acting, Role, RolesConfig, ToolGrant
from fleet.redaction.redact_json import redact_json
from serve_apps.requests import Caller
from serve_apps.wire.story import Wire

in_force_router = APIRouter(prefix="/api")


@dataclass(frozen=True, slots=True)
class ConfigInForce:
    """What this front was started with: the types of two files, and the digests of all (GL-23)."""

    models: ModelsConfig
    roles: RolesConfig
    digests: Mapping[str, Digest]
    personas: Mapping[str, str] = field(default_factory=dict[str, str])
    """By path below config/, the text of a role's prompt."""


class EngineView(Wire):
    """One engine: where it runs, what it takes, what it costs."""

    engine_id: str
    kind: str
    runs: Literal["server", "actors", "recorded", "mock", "plugin"]
    """A server of somebody else, actors of this fleet, recorded replies, fixed answers, or an installed package."""
    preset: str | None
    model: str
    revision: str
    host: str | None
    """Scheme, host and port of the server; null where there is none. A variable may replace it at the start."""
    has_key: bool
    """Whether an entry says where a key comes from; neither the key nor the place is told."""
    weights_sha256: str | None
    tokenizer: str | None
    max_context: int
    max_output: int
    max_concurrency: int
    max_waiting: int
    replicas: int | None
    gpus: int
    rate_cap: RateCap | None
    price: Price | None
    unpriced: bool
    external: bool
    """Data leaves the owner's machines."""
    capabilities: tuple[str, ...]
    tool_form: str


class EngineList(Wire):
    """The engines of config/models.yaml, in its order."""

    file: str
    digest: str
    items: tuple[EngineView, ...]


class PolicyView(Wire):
    """The chain of one role, best engine first; `profile` stands for the engine that a run names."""

    role: str
    policy: Policy


class PolicyList(Wire):
    """Which role uses which engines; a role without a row uses `default`."""

    file: str
    digest: str
    items: tuple[PolicyView, ...]


class GrantView(Wire):
    """What a role may do with one tool; write paths bind writing, and none of them means everywhere."""

    ops: tuple[str, ...]
    commands: tuple[str, ...]
    hosts: tuple[str, ...]
    dbs: tuple[str, ...]
    write_paths: tuple[str, ...]


class RoleView(Wire):
    """A role with everything resolved that it inherits."""

    name: str
    lineage: tuple[str, ...]
    actor: str
    scope: str
    assignable: bool
    tools: dict[str, GrantView]
    phases: tuple[str, ...]
    council_weight: int
    prompt: str
    model_policy: str
    sees_stories: str
    sees_decisions: tuple[str, ...]
    """Categories of decisions, or `all` alone."""
    acts: Acting | None


class RoleList(Wire):
    """The roles and profiles of config/roles.yaml, by name."""

    file: str
    digest: str
    items: tuple[RoleView, ...]


def _config(request: Request, who: Caller) -> ConfigInForce:
    config: ConfigInForce | None = request.app.state.config
    if config is None:
        raise StoreUnavailable("this front has no configuration wired")
    return config


Config = Annotated[ConfigInForce, Depends(_config)]


@in_force_router.get("/engines", response_model=EngineList, operation_id="engines_api_engines_get")
async def engines(config: Config, who: Caller) -> EngineList:
    """Every engine that a run or a policy may name."""
    items = tuple(_engine(engine) for engine in config.models.engines)
    return EngineList(file="models.yaml", digest=_digest(config, "models.yaml"), items=items)


@in_force_router.get("/models/policies", response_model=PolicyList, operation_id="policies_api_models_policies_get")
async def policies(config: Config, who: Caller) -> PolicyList:
    """The engines of each role, in the order in which they are tried."""
    rows = sorted(config.models.policies.items())
    items = tuple(PolicyView(role=role, policy=policy) for role, policy in rows)
    return PolicyList(file="models.yaml", digest=_digest(config, "models.yaml"), items=items)


@in_force_router.get("/roles", response_model=RoleList, operation_id="roles_api_roles_get")
async def roles(config: Config, who: Caller) -> RoleList:
    """What each role may do and call, and what it sees."""
    items = tuple(_role(role) for _, role in sorted(config.roles.roles.items()))
    return RoleList(file="roles.yaml", digest=_digest(config, "roles.yaml"), items=items)


def _digest(config: ConfigInForce, file: str) -> str:
    return config.digests.get(file, "")


def _engine(engine: EngineConfig) -> EngineView:
    server = engine if isinstance(engine, HttpEngine) else None
    actors = engine if isinstance(engine, ActorEngine) else None
    keyed = server or actors
    secret = engine if isinstance(engine, HttpEngine | PluginEngine) else None
    tokenizer = engine.tokenizer
    view = EngineView(
        engine_id=engine.engine_id,
        kind=engine.kind,
        runs="server" if server else "actors" if actors else _stand_in(engine),
        preset=server.preset if server else None,
        model=engine.model,
        revision=engine.revision,
        host=_host(server.base_url) if server else None,
        has_key=bool((keyed and keyed.api_key_env) or (secret and secret.api_key)),
        weights_sha256=actors.weights.sha256 if actors and actors.weights else None,
        tokenizer=tokenizer.label if tokenizer else None,
        max_context=engine.max_context,
        max_output=engine.max_output,
        max_concurrency=engine.max_concurrency,
        max_waiting=engine.max_waiting,
        replicas=actors.replicas if actors else None,
        gpus=engine.gpus,
        rate_cap=engine.rate_cap,
        price=engine.price,
        unpriced=engine.unpriced,
        external=engine.external,
        capabilities=tuple(sorted(engine.capabilities)),
        tool_form=engine.tool_form,
    )
    # Somebody may have written a token where none belongs, as into the name of a model.
    return EngineView.model_validate(redact_json(view.model_dump(mode="json")))


def _stand_in(engine: EngineConfig) -> Literal["recorded", "mock", "plugin"]:
    match engine:
        case RecordedEngine():
            return "recorded"
        case PluginEngine():
            return "plugin"
        case _:
            return "mock"


def _host(address: str) -> str | None:
    """Scheme, host and port: a user part, a path and a query may hold a key."""
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return None
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.scheme and parts.hostname else None


def _role(role: Role) -> RoleView:
    decisions = role.visibility.decisions
    return RoleView(
        name=role.name,
        lineage=role.lineage,
        actor=role.actor,
        scope=role.scope,
        assignable=role.assignable,
        tools={name: _grant(role.tools[name]) for name in sorted(role.tools)},
        phases=tuple(sorted(role.phases)),
        council_weight=role.council_weight,
        prompt=role.prompt,
        model_policy=role.model_policy,
        sees_stories=role.visibility.stories,
        sees_decisions=("all",) if decisions == "all" else tuple(sorted(decisions)),
        acts=role.acts,
    )


def _grant(grant: ToolGrant) -> GrantView:
    return GrantView(
        ops=tuple(sorted(grant.ops)),
        commands=tuple(sorted(grant.commands)),
        hosts=tuple(sorted(grant.hosts)),
        dbs=tuple(sorted(grant.dbs)),
        write_paths=tuple(sorted(grant.write_paths)),
    )
