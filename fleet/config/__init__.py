"""Settings and config files: validated completely before anything starts (GL-22)."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.config.blobs import BlobSettings, FileBlobSettings, RedisBlobSettings, S3BlobSettings
    from fleet.config.deploying import DeploySettings
    from fleet.config.document import MAX_DOCUMENT_BYTES, parse_document, validated
    from fleet.config.environment import Key, config_files, load_settings, settings_keys
    from fleet.config.files import ConfigFiles, packaged_directory
    from fleet.config.labels import LabelChoice, LabelKey, LabelValue, has_node
    from fleet.config.notifications import (
        MailTargetSettings,
        NotificationSettings,
        TargetSettings,
        WebhookTargetSettings,
    )
    from fleet.config.observability import ObservabilitySettings
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
        ActorKind,
        AuditSettings,
        BubblewrapBackendSettings,
        ChatFrontSettings,
        ContainerBackendSettings,
        FleetSettings,
        ForgeSettings,
        HostedForgeSettings,
        KubernetesBackendSettings,
        LeaseSettings,
        LlamaSettings,
        LocalForgeSettings,
        MemorySettings,
        ModelsSettings,
        Neo4jSettings,
        PortSettings,
        RateSettings,
        RaySettings,
        SandboxBackendSettings,
        ServeAppSettings,
        ServeSettings,
    )
    from fleet.config.values import Settings
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "NotificationSettings",
    "MailTargetSettings",
    "TargetSettings",
    "WebhookTargetSettings",
    "MAX_DOCUMENT_BYTES",
    "ActorKind",
    "AuditSettings",
    "BlobSettings",
    "BubblewrapBackendSettings",
    "ChatFrontSettings",
    "ConfigFiles",
    "ContainerBackendSettings",
    "DeploySettings",
    "EnvironmentSecretsSettings",
    "FileBlobSettings",
    "FileSecretsSettings",
    "FleetSettings",
    "ForgeSettings",
    "HostedForgeSettings",
    "Key",
    "KubernetesBackendSettings",
    "KubernetesKeySettings",
    "KubernetesSecretsSettings",
    "LabelChoice",
    "LabelKey",
    "LabelValue",
    "LeaseSettings",
    "LlamaSettings",
    "LocalForgeSettings",
    "MemorySettings",
    "ModelsSettings",
    "MountedSecretsSettings",
    "Neo4jSettings",
    "ObservabilitySettings",
    "PortSettings",
    "RateSettings",
    "RaySettings",
    "RedisBlobSettings",
    "S3BlobSettings",
    "SandboxBackendSettings",
    "SecretsSettings",
    "ServeAppSettings",
    "ServeSettings",
    "Settings",
    "VaultKeySettings",
    "VaultKubernetesAuth",
    "VaultSecretsSettings",
    "VaultTokenAuth",
    "config_files",
    "has_node",
    "load_settings",
    "packaged_directory",
    "parse_document",
    "settings_keys",
    "settings_reference",
    "validated",
]
