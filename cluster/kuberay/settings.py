"""One cluster as a file of config/cluster says it: groups, images, addresses and the names of secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.config.settings import LabelKey, LabelValue
from fleet.config.values import Settings

DnsName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")]
ShortName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$")]
"""At most 30 characters: the operator and Kubernetes append to it and allow 63."""
SecretRef = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
SecretKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")]
Image = Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9._/:-]{0,200}@sha256:[0-9a-f]{64}$")]
"""By digest (`name@sha256:...`), so that every node runs the same bytes."""
Cpu = Annotated[str, Field(pattern=r"^([1-9][0-9]*m?|0?\.[0-9]+|[1-9][0-9]*\.[0-9]+)$")]
Bytes = Annotated[str, Field(pattern=r"^[1-9][0-9]*(Ki|Mi|Gi|Ti)$")]
Labels = Mapping[str, str]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]


class KeyOfSecret(Settings):
    """A key of an object of kind Secret; its value never stands in a file of the fleet."""

    secret: SecretRef
    """Name of the Secret, in the namespace of the cluster."""
    key: SecretKey
    """Key within it."""


class ImageSettings(Settings):
    """What the pods run."""

    head: Image
    """The head of Ray."""
    worker: Image
    """Workers without a GPU."""
    gpu: Image | None = None
    """Workers with GPUs: vLLM and its libraries."""
    toolbox: Image | None = None
    """What the runs of agents see (cluster/images/toolbox.Containerfile)."""
    pull_secrets: tuple[SecretRef, ...] = ()
    """Secrets of kind kubernetes.io/dockerconfigjson with which nodes fetch these images."""


class Toleration(Settings):
    """A taint of nodes that a group bears."""

    key: str = Field(min_length=1)
    """Key of the taint."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """Equal compares `value` too."""
    value: str | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Unset bears every effect."""


class HeadSettings(Settings):
    """The head of Ray: it schedules, and runs no actor of the fleet."""

    cpu: Cpu = "2"
    """CPUs, asked for and allowed."""
    memory: Bytes = "8Gi"
    """Memory, asked for and allowed."""
    node_selector: Labels = {}
    """Labels of nodes it may be placed on."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that it bears."""


class WorkerSettings(Settings):
    """A group of equal workers."""

    name: ShortName
    """Of the group."""
    pool: Literal["agents", "sandbox", "gpu"]
    """What it is for; actors ask for it by the label `pool`."""
    labels: Mapping[LabelKey, LabelValue] = {}
    """Further labels of its nodes in Ray, for `fleet.placement` and for `node_labels` of engines."""
    replicas: int = Field(ge=0, le=1_000)
    """Pods at the start."""
    min_replicas: int | None = Field(default=None, ge=0, le=1_000)
    """The autoscaler keeps as many; unset is `replicas`."""
    max_replicas: int | None = Field(default=None, ge=1, le=1_000)
    """The autoscaler adds no more; unset is `replicas`."""
    cpu: Cpu = "4"
    """CPUs of a pod."""
    memory: Bytes = "16Gi"
    """Memory of a pod."""
    gpus: int | None = Field(default=None, ge=1, le=16)
    """GPUs of a pod; needed in the pool gpu, refused in the others."""
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """Name under which the device plugin offers them."""
    node_selector: Labels = {}
    """Labels of nodes it may be placed on."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that it bears."""
    idle_timeout_s: int | None = Field(default=None, ge=10)
    """The autoscaler takes a pod away that was idle for so long; unset is that of the autoscaler."""
    grace_s: int = Field(default=60, ge=45, le=3_600)
    """Time to drain before a pod is killed; Ray itself takes up to 30 s."""

    @property
    def node_labels(self) -> dict[str, str]:
        """All labels of its nodes in Ray."""
        return {"pool": self.pool, **dict(sorted(self.labels.items()))}

    @property
    def least(self) -> int:
        """Pods that always stay."""
        return self.replicas if self.min_replicas is None else self.min_replicas

    @property
    def most(self) -> int:
        """Pods at most."""
        return max(self.replicas, 1) if self.max_replicas is None else self.max_replicas


class AutoscalerSettings(Settings):
    """Ray's autoscaler, version 2, in the pod of the head."""

    idle_timeout_s: int = Field(default=300, ge=10)
    """Workers that were idle for so long are taken away."""
    upscaling: Literal["Default", "Conservative", "Aggressive"] = "Default"
    """How quickly workers are added."""


class StorageSettings(Settings):
    """A volume of a store."""

    size: Bytes
    """How much is asked for."""
    storage_class: str | None = None
    """Class of the volume; unset is that of the cluster."""


class OwnRedis(Settings):
    """A Redis (or Valkey) of the fleet's own: a StatefulSet of one pod."""

    kind: Literal["own"]
    image: Image
    """Redis 7.2 or newer, or Valkey."""
    password: KeyOfSecret
    """Its password; an object of kind Secret that you made."""
    storage: StorageSettings | None = None
    """Its volume; a cache has none."""
    cpu: Cpu = "1"
    """CPUs, asked for and allowed."""
    memory: Bytes = "2Gi"
    """Memory; the data takes at most three quarters of it."""


class ExistingRedis(Settings):
    """A Redis that is there already."""

    kind: Literal["existing"]
    host: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")
    """Name or address of the server."""
    port: int = Field(default=6379, ge=1, le=65_535)
    """Port of the server."""
    database: int = Field(default=0, ge=0)
    """Number of the database."""
    tls: bool = False
    """Speak TLS to it."""
    user: str | None = None
    """User; unset is the default one."""
    password: KeyOfSecret
    """Its password."""
    cidrs: tuple[Cidr, ...] = Field(min_length=1)
    """Where it is, for the network policy: pods may reach these addresses on that port."""


class OwnNeo4j(Settings):
    """A Neo4j of the fleet's own: a StatefulSet of one pod."""

    kind: Literal["own"]
    image: Image
    """Neo4j 5 Community or newer."""
    password: KeyOfSecret
    """Password of the user neo4j."""
    storage: StorageSettings
    """Its volume."""
    cpu: Cpu = "2"
    """CPUs, asked for and allowed."""
    memory: Bytes = "4Gi"
    """Memory."""
    heap: Annotated[str, Field(pattern=r"^[1-9][0-9]*[mg]$")] = "1g"
    """Heap of Java; the page cache is as large."""


class ExistingNeo4j(Settings):
    """A Neo4j that is there already."""

    kind: Literal["existing"]
    uri: str = Field(pattern=r"^(bolt|neo4j)(\+s|\+ssc)?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$")
    """Address without user and password."""
    user: str = Field(default="neo4j", min_length=1)
    """User at that server."""
    password: KeyOfSecret
    """Its password."""
    cidrs: tuple[Cidr, ...] = Field(min_length=1)
    """Where it is, for the network policy."""


Redis = Annotated[OwnRedis | ExistingRedis, Field(discriminator="kind")]
Neo4j = Annotated[OwnNeo4j | ExistingNeo4j, Field(discriminator="kind")]


class HomeSettings(Settings):
    """FLEET_HOME of the pods: audit keys, exported checkpoints, and blobs of kind `file`."""

    kind: Literal["shared", "node"]
    """shared: one volume that all pods mount (ReadWriteMany). node: each pod has its own, which ends with it."""
    size: Bytes = "20Gi"
    """How much is asked for."""
    storage_class: str | None = None
    """Class of a shared volume; it has to offer ReadWriteMany."""


class IngressSettings(Settings):
    """The HTTP front for people and programs outside of the cluster."""

    class_name: str = Field(min_length=1)
    """Ingress class."""
    host: str | None = None
    """Name under which it is reached; needed."""
    tls_secret: SecretRef | None = None
    """Secret of kind kubernetes.io/tls for that name; needed."""
    annotations: Labels = {}
    """For the controller."""


class NetworkSettings(Settings):
    """Who may reach what beside the pods of the fleet themselves."""

    operator_namespace: DnsName = "kuberay-operator"
    """Where the KubeRay operator is: it asks the dashboard and the front."""
    ingress_namespace: DnsName = "ingress-nginx"
    """Where the ingress controller is."""
    metrics_namespace: DnsName | None = None
    """Where Prometheus is; unset lets nobody read metrics."""
    rpc_namespaces: tuple[DnsName, ...] = ()
    """Whose pods may call gRPC, which needs `rpc_port` in serve.yaml. Nobody's unless given."""
    dns_namespace: DnsName = "kube-system"
    """Where names are resolved."""
    api_server: tuple[Cidr, ...] = ()
    """Addresses of the API server; needed with an autoscaler or runs as Jobs."""
    api_server_port: int = Field(default=443, ge=1, le=65_535)
    """Its port, as the pods see it."""
    egress: tuple[Cidr, ...] = ()
    """Addresses that workers may reach by HTTPS: model endpoints, forges. Nothing unless given."""


class RunSettings(Settings):
    """Runs of agents as Kubernetes Jobs, in a namespace of their own."""

    namespace: DnsName = "swe-fleet-runs"
    """Holds nothing else."""
    runtime_class: str | None = None
    """Such as `gvisor` or `kata`; unset is that of the cluster (with CRI-O or containerd alike)."""
    node_labels: Labels = {}
    """Runs are placed only on nodes with these labels."""
    max_parallel: int = Field(default=16, ge=1, le=1_000)
    """Jobs at one time for each supervisor."""


class ClusterSettings(Settings):
    """A fleet on KubeRay."""

    name: ShortName
    """Of the cluster and the start of all names."""
    namespace: DnsName
    """Where it is."""
    kind: Literal["service", "cluster"] = "service"
    """service: a RayService, which upgrades by a second cluster. cluster: a RayCluster that is kept."""
    ray_version: str = Field(default="2.60.0", pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$")
    """As in the images."""
    images: ImageSettings
    ray_token: SecretRef
    """Secret whose key `auth_token` is the token of Ray; the operator reads that key."""
    principals: KeyOfSecret
    """principals.json: who may use the front (docs/api.md)."""
    head: HeadSettings = HeadSettings()
    workers: tuple[WorkerSettings, ...] = Field(min_length=1)
    """Groups of workers."""
    autoscaler: AutoscalerSettings | None = None
    """Unset keeps the number of workers."""
    log: Redis
    """The truth: append-only, fsync at every write, no eviction."""
    cache: Redis
    """May lose everything."""
    gcs: Redis
    """State of Ray's head, so that it may die; never the log."""
    graph: Neo4j
    """The decision graph."""
    home: HomeSettings
    runs: RunSettings | None = None
    """Unset runs the sandbox inside of the pods of the pool sandbox."""
    ingress: IngressSettings | None = None
    """Unset lets nobody in from outside; `kubectl port-forward` still does."""
    network: NetworkSettings = NetworkSettings()
    env: Mapping[VariableName, str] = {}
    """Variables of all pods that are no secret."""
    env_secrets: Mapping[VariableName, KeyOfSecret] = {}
    """Variables of all pods out of Secrets: keys of models."""
    fleet: Mapping[str, Any] = {}
    """Replaces keys of fleet.yaml in this cluster."""
