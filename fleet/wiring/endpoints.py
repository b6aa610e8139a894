"""Where a running fleet is, and the rules that it works under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from fleet.config.blobs import BlobSettings, FileBlobSettings
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.notifications import NotificationSettings
from fleet.config.settings import (
    ActorKind,
    BubblewrapBackendSettings,
    DeploySettings,
    ForgeSettings,
    LlamaSettings,
    ModelsSettings,
    ObservabilitySettings,
    RegistrySettings,
    SandboxBackendSettings,
    SessionDiskSettings,
)
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry
from fleet.kernel.documents import WrongKey, wrong_file
from fleet.kernel.errors import ConfigError
from fleet.policy.runs.toolchains import Language

if TYPE_CHECKING:
    from fleet.context.scope import ContextConfig
    from fleet.owner.definitions import Definitions, KeptDefinitions
    from fleet.owner.journal.steps import StepPolicy
    from fleet.policy.deploy import DeployTarget
    from fleet.policy.roles import RolesConfig
    from fleet.trees.port import BlobStore

_CODERS = frozenset({"developer", "devops", "data"})
"""Roles whose work is a change of files; tasks go to these."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the parts of a running fleet are; handed to every actor, so it holds plain values only."""

    home: str
    config: str | None
    redis_url: str
    cache_url: str
    neo4j_uri: str
    neo4j_user: str
    neo4j_password: str
    neo4j_database: str
    node: str
    pools: Mapping[str, int]
    council_shards: int
    lease_ttl_s: int
    sweep_s: int
    record_dir: str | None
    code_digest: str
    environ: Mapping[str, str]
    """The variables that engines of config/models.yaml name: addresses, model names, keys."""
    served: tuple[str, ...] = ()
    """Those of them that were set for an engine which the fleet's own command started."""
    audit_export: str | None = None
    """Where checkpoints are exported to; None is below the home."""
    audit_interval_s: int = 60
    blobs: BlobSettings = FileBlobSettings()
    """Where blobs are; names the keys of a store and never holds them."""
    sandbox_waiting: int = 64
    """Runs that may wait for their turn on one node."""
    sandbox_disk: SessionDiskSettings = SessionDiskSettings()
    """What work sessions may take on the disk of a node."""
    sandbox_waived: tuple[str, ...] = ()
    """Isolation that may be missing (RC-32)."""
    sandbox_backend: SandboxBackendSettings = BubblewrapBackendSettings()
    """What holds the runs."""
    sandbox_registries: Mapping[Language, RegistrySettings] = field(default_factory=dict[Language, RegistrySettings])
    """Where packages come from, by language."""
    deploy: DeploySettings = DeploySettings()
    """Where stories are deployed."""
    forge: ForgeSettings | None = None
    """Where change requests are opened; None opens none. Names its token and never holds it."""
    models: ModelsSettings = ModelsSettings()
    """Engines that run in actors of the fleet."""
    llama: LlamaSettings = LlamaSettings()
    """What runs engines of kind `local`."""
    placement: Mapping[ActorKind, Mapping[str, str]] = field(default_factory=dict[ActorKind, Mapping[str, str]])
    """Labels of the nodes that each kind of actor goes to."""
    observability: ObservabilitySettings = ObservabilitySettings()
    """What every process tells of itself."""
    notifications: NotificationSettings = NotificationSettings()
    """Who is told outside of the fleet. Names keys and never holds them."""

    @property
    def files(self) -> ConfigFiles:
        """The config files: packaged ones, and those that replace them."""
        return ConfigFiles(packaged_directory(), Path(self.config) if self.config else None)

    @property
    def blob_root(self) -> Path:
        """Where blobs are."""
        return Path(self.home) / "blobs"

    @property
    def audit(self) -> AuditPlaces:
        """Where the audit keeps its key and its copies."""
        return audit_places(Path(self.home), self.audit_export)

    @property
    def principals_file(self) -> Path:
        """The local token file."""
        return Path(self.home) / "principals.json"


@dataclass(frozen=True, slots=True)
class AuditPlaces:
    """Files of the audit: the notary's key, its public half, and the folder of exported checkpoints."""

    key: Path
    public: Path
    folder: Path


def audit_places(home: Path, export: str | Path | None = None) -> AuditPlaces:
    """The places below the home, but for a folder that is given; usable without a running fleet."""
    root = home / "audit"
    return AuditPlaces(root / "notary.key", root / "notary.pub", Path(export) if export else root / "exported")


def load_definitions(files: ConfigFiles) -> Definitions:
    """The rules that stories are worked on under; ConfigError names file, path and reason."""
    # Imported here: every actor and command knows `Endpoints`, and few of them need the machinery of owners.
    from fleet.council.config import CouncilConfig
    from fleet.owner.definitions import Definitions
    from fleet.planning.planning_config import PlanningConfig
    from fleet.story.lifecycle import FsmConfig
    from fleet.wiring.sandbox.plugins import active_roles
    from fleet.workspace.levels import RigorConfig

    roles, fsm = active_roles(files), files.load("fsm.yaml", FsmConfig)
    council, planning = files.load("council.yaml", CouncilConfig), files.load("planning.yaml", PlanningConfig)
    for name, config in {"fsm.yaml": fsm, "council.yaml": council, "planning.yaml": planning}.items():
        _check_roles(files, name, config.unknown_roles(roles.roles.keys()))
    return Definitions(
        fsm=fsm,
        rigor=files.load("rigor.yaml", RigorConfig),
        council=council,
        planning=planning,
        context=_with_views(files, roles),
        assignable_roles=tuple(r for r in roles.assignable if r in _CODERS),
    )


def _check_roles(files: ConfigFiles, name: str, unknown: Mapping[str, str]) -> None:
    if unknown:
        problems = [WrongKey(path, f"roles.yaml has no role {role!r}") for path, role in unknown.items()]
        raise wrong_file(str(files.path(name)), problems, files.document(name))


def kept_definitions(
    files: ConfigFiles, blobs: BlobStore, *, targets: tuple[DeployTarget, ...]
) -> KeptDefinitions[tuple[Definitions, StepPolicy]]:
    """The rules of each story, and the policy in force over its lifecycle (GL-23)."""
    from fleet.owner.definitions import KEPT_FILES, KeptDefinitions
    from fleet.owner.journal.steps import StepPolicy
    from fleet.wiring.sandbox.plugins import active_policy

    policy = active_policy(files)

    def read(kept: Mapping[str, bytes]) -> tuple[Definitions, StepPolicy]:
        found = replace(load_definitions(replace(files, kept=kept)), targets=targets)
        return found, StepPolicy(policy, found.fsm)

    return KeptDefinitions({name: files.read(name) for name in KEPT_FILES}, read, blobs)


def load_context(files: ConfigFiles) -> ContextConfig:
    """Which role sees what of a story.

    A role that context.yaml does not name sees what the one sees that it extends.
    """
    from fleet.wiring.sandbox.plugins import active_roles

    return _with_views(files, active_roles(files))


def _with_views(files: ConfigFiles, roles: RolesConfig) -> ContextConfig:
    from fleet.context.scope import ContextConfig

    context = files.load("context.yaml", ContextConfig)
    _check_roles(files, "context.yaml", context.unknown_roles(roles.roles.keys()))
    return context.with_lineages({name: role.lineage for name, role in roles.roles.items()})


def load_principals(path: Path) -> PrincipalRegistry:
    """The principals of the local token file; nobody when there is none yet.

    Raises:
        ConfigError: it is no such list; names the file and the reason of every problem, and no value.
    """
    if not path.exists():
        return PrincipalRegistry(())
    try:
        return PrincipalRegistry(TypeAdapter(tuple[PrincipalEntry, ...]).validate_json(path.read_bytes()))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        problems = [
            {"path": ".".join(map(str, item["loc"])) or "(whole file)", "reason": item["msg"]} for item in errors
        ]
        listed = "; ".join(f"{problem['path']}: {problem['reason']}" for problem in problems)
        raise ConfigError(f"{path}: {listed}; docs/api.md shows its form", file=str(path), problems=problems) from error
