"""Settings and config files: validated completely before anything starts (GL-22)."""

from fleet.config.document import MAX_DOCUMENT_BYTES, parse_document, validated
from fleet.config.environment import Key, config_files, load_settings, settings_keys
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.reference import settings_reference
from fleet.config.secrets import (
    EnvironmentSecretsSettings,
    FileSecretsSettings,
    KubernetesKeySettings,
    KubernetesSecretsSettings,
    MountedSecretsSettings,
    SecretsSettings,
    VaultKeySettings,
    VaultKubernetesAuth,
    VaultSecretsSettings,
    VaultTokenAuth,
)
from fleet.config.settings import (
    AuditSettings,
    DeploySettings,
    FleetSettings,
    LeaseSettings,
    MemorySettings,
    Neo4jSettings,
    PortSettings,
    RateSettings,
    RaySettings,
    ServeAppSettings,
    ServeSettings,
    Settings,
)

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "AuditSettings",
    "ConfigFiles",
    "DeploySettings",
    "EnvironmentSecretsSettings",
    "FileSecretsSettings",
    "FleetSettings",
    "Key",
    "KubernetesKeySettings",
    "KubernetesSecretsSettings",
    "LeaseSettings",
    "MemorySettings",
    "MountedSecretsSettings",
    "Neo4jSettings",
    "PortSettings",
    "RateSettings",
    "RaySettings",
    "SecretsSettings",
    "ServeAppSettings",
    "ServeSettings",
    "Settings",
    "VaultKeySettings",
    "VaultKubernetesAuth",
    "VaultSecretsSettings",
    "VaultTokenAuth",
    "config_files",
    "load_settings",
    "packaged_directory",
    "parse_document",
    "settings_keys",
    "settings_reference",
    "validated",
]
