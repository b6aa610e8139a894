"""config/secrets.yaml: where secrets are, and who may use them for what (RT-65)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Tag, model_validator

from fleet.config.values import AbsolutePath, PluginSettings, Settings, by_kind
from fleet.kernel.documents import WrongKey, WrongKeys
from fleet.policy.secret_grants import SecretGrant
from fleet.policy.secret_refs import SecretName

Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
Names = Annotated[frozenset[SecretName], Field(min_length=1)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")]
DataKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")]
VaultPath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(?:/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){0,15}$")
]
Seconds = Annotated[float, Field(gt=0, le=60)]
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class FileSecretsSettings(Settings):
    """Files that the fleet's user alone may read."""

    kind: Literal["file"]
    label: Label
    """Name of this provider in audit lines and errors."""
    path: AbsolutePath
    """Folder (mode 0700) with one file (0600) per secret, or one JSON file (0600) of names and values."""
    secrets: Names
    """The secrets that are there."""


class EnvironmentSecretsSettings(Settings):
    """Variables of the process."""

    kind: Literal["environment"]
    label: Label
    """Name of this provider in audit lines and errors."""
    prefix: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{2,39}_$")]
    """What the variables begin with: prefix `CI_SECRET_` makes `deploy-token` the variable `CI_SECRET_DEPLOY_TOKEN`."""
    secrets: Names
    """The secrets that are there."""


class _FoundElsewhere(Settings):
    @property
    def options(self) -> dict[str, Any]:
        """What the provider takes."""
        return self.model_dump(exclude={"kind", "label"})


class MountedSecretsSettings(_FoundElsewhere):
    """A Secret volume of the pod."""

    kind: Literal["kubernetes-mount"]
    label: Label
    """Name of this provider in audit lines and errors."""
    mount: AbsolutePath
    """Where the volume is mounted, without subPath."""
    secrets: Names
    """The secrets that are there, each under the key of its name."""


class KubernetesKeySettings(Settings):
    """One key of one Secret object."""

    secret: ObjectName
    """Name of the object."""
    key: DataKey
    """Key in its data."""


class KubernetesSecretsSettings(_FoundElsewhere):
    """Secret objects, read through the API server."""

    kind: Literal["kubernetes"]
    label: Label
    """Name of this provider in audit lines and errors."""
    url: str = "https://kubernetes.default.svc"
    """Address of the API server."""
    namespace: ObjectName
    """Namespace of the objects."""
    token_file: AbsolutePath = _ACCOUNT / "token"
    """Token of an account that may `get` these objects."""
    ca_file: AbsolutePath | None = _ACCOUNT / "ca.crt"
    """Certificate of the cluster's authority; null trusts the usual ones."""
    timeout_s: Seconds = 5
    """Seconds for one request."""
    secrets: Annotated[dict[SecretName, KubernetesKeySettings], Field(min_length=1)]
    """Secret -> object and key."""


class VaultKeySettings(Settings):
    """One key of one Vault secret."""

    path: VaultPath
    """Path below the engine's mount, without `data/`."""
    key: Annotated[str, Field(min_length=1, max_length=253)]
    """Key of the value there."""
    version: Annotated[int, Field(ge=1)] | None = None
    """Always this version; unset takes the newest."""


class VaultTokenAuth(Settings):
    """A Vault token in a file, as an agent keeps it there."""

    kind: Literal["token"]
    token_file: AbsolutePath
    """File of mode 0600; read at each use."""


class VaultKubernetesAuth(Settings):
    """Login with the pod's own token."""

    kind: Literal["kubernetes"]
    role: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
    """Role of Vault's Kubernetes auth."""
    mount: VaultPath = "kubernetes"
    """Where that auth method is mounted."""
    token_file: AbsolutePath = _ACCOUNT / "token"
    """The pod's token."""


class VaultSecretsSettings(_FoundElsewhere):
    """HashiCorp Vault or OpenBao, key-value engine version 2."""

    kind: Literal["vault"]
    label: Label
    """Name of this provider in audit lines and errors."""
    url: str
    """Address: https, or http on this machine."""
    mount: VaultPath = "secret"
    """Where the engine is mounted."""
    namespace: VaultPath | None = None
    """Namespace; unset is the root."""
    auth: Annotated[VaultTokenAuth | VaultKubernetesAuth, Field(discriminator="kind")]
    """How the fleet shows who it is."""
    ca_file: AbsolutePath | None = None
    """Certificates to trust instead of the usual ones."""
    timeout_s: Seconds = 5
    """Seconds for one request."""
    secrets: Annotated[dict[SecretName, VaultKeySettings], Field(min_length=1)]
    """Secret -> path and key."""


class PluginSecretsSettings(PluginSettings):
    """Secrets where an installed package finds them."""

    label: Label
    """Name of this provider in audit lines and errors."""
    secrets: Names
    """The secrets that are there."""


ProviderSettings = Annotated[
    Annotated[FileSecretsSettings, Tag("file")]
    | Annotated[EnvironmentSecretsSettings, Tag("environment")]
    | Annotated[MountedSecretsSettings, Tag("kubernetes-mount")]
    | Annotated[KubernetesSecretsSettings, Tag("kubernetes")]
    | Annotated[VaultSecretsSettings, Tag("vault")]
    | Annotated[PluginSecretsSettings, Tag("plugin")],
    by_kind("file", "environment", "kubernetes-mount", "kubernetes", "vault"),
]


class SecretsSettings(Settings):
    """Everything that config/secrets.yaml says. It holds names, places and rights, never a value."""

    life_s: int = Field(default=60, ge=1, le=900)
    """Seconds for which a value is used before it is read again."""
    providers: tuple[ProviderSettings, ...] = ()
    """Where secrets are. Each secret has one provider."""
    grants: tuple[SecretGrant, ...] = ()
    """Who may use what. What is not granted is denied."""

    @model_validator(mode="after")
    def _one_provider_each(self) -> Self:
        labels = [provider.label for provider in self.providers]
        names = [name for provider in self.providers for name in provider.secrets]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two providers are called {', '.join(twice)}")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two providers serve {', '.join(twice)}")
        stray = [(n, grant.secret) for n, grant in enumerate(self.grants) if grant.secret not in names]
        if stray:
            raise WrongKeys(WrongKey(f"grants.{n}.secret", f"no provider serves {secret!r}") for n, secret in stray)
        return self
