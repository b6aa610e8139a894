"""Secret providers: files, environment, Kubernetes and Vault."""

from fleet.adapters.secrets.environment import EnvironmentSecrets, variable_of
from fleet.adapters.secrets.file import FileSecrets
from fleet.adapters.secrets.http import SecretHttp
from fleet.adapters.secrets.kubernetes import KubernetesKey, KubernetesSecrets, MountedSecrets
from fleet.adapters.secrets.vault import KubernetesLogin, TokenFile, VaultKey, VaultSecrets

__all__ = [
    "EnvironmentSecrets",
    "FileSecrets",
    "KubernetesKey",
    "KubernetesLogin",
    "KubernetesSecrets",
    "MountedSecrets",
    "SecretHttp",
    "TokenFile",
    "VaultKey",
    "VaultSecrets",
    "variable_of",
]
