"""Where in a Kubernetes cluster a deploy target runs, and in what: as declared in config/fleet.yaml (LC-49)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleet.kernel.types import Frozen

OWN_API = "https://kubernetes.default.svc"
"""API server of the cluster that a pod is in."""

_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_FILE = r"^/[^\x00-\x1f]{1,4000}$"
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_API = (
    r"^(https://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?|"
    r"http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?)/?$"
)

Image = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,200}@sha256:[0-9a-f]{64}$")]
DnsLabel = Annotated[str, Field(pattern=_LABEL)]
ObjectName = Annotated[str, Field(pattern=_NAME)]


class IngressRule(Frozen):
    """How people outside of the cluster reach a deployed program."""

    host: ObjectName
    """Name under which it is reached."""
    class_name: ObjectName
    """Ingress class."""
    tls_secret: ObjectName
    """Secret of kind kubernetes.io/tls for that name, in the target's namespace."""


class ClusterPlace(Frozen):
    """One namespace of one cluster, the image that programs run in, and what each of them may use."""

    namespace: DnsLabel
    """Where the programs run; it should hold nothing else."""
    image: Image
    """What the program runs in, by digest (`name@sha256:...`): its language and libraries. The story's tree lies in
    /workspace, which it may only read."""
    tree_image: Image | None = None
    """What puts the tree in place before the program starts; it holds Python 3 as `python3`. Unset is `image`."""
    url: Annotated[str, Field(pattern=_API)] = OWN_API
    """Address of the API server; `http` for `kubectl proxy` on the fleet's node alone."""
    token_file: Annotated[str, Field(pattern=_FILE)] | None = f"{_ACCOUNT}/token"
    """Token of the account that deploys, read at each call; null asks without one (`kubectl proxy`)."""
    ca_file: Annotated[str, Field(pattern=_FILE)] | None = f"{_ACCOUNT}/ca.crt"
    """Certificate of the cluster's authority; null trusts the usual ones."""
    replicas: Annotated[int, Field(ge=1, le=20)] = 1
    """Pods of the program; it is ready when all of them are."""
    cpu_millis: Annotated[int, Field(ge=10, le=64_000)] = 500
    """Of each pod, in thousandths of a processor; memory is `memory_mb` of the target."""
    disk_mb: Annotated[int, Field(ge=16, le=65_536)] = 512
    """For the tree, and as much again for /tmp, the one place that the program may write."""
    start_s: Annotated[int, Field(ge=5, le=100)] = 90
    """How long a pod may take until its program is started: images are pulled. Then `ready.within_s` begins."""
    user: Annotated[int, Field(ge=1, le=65_535)] = 1000
    """Number of the user that the program runs as; never root."""
    service_account: ObjectName | None = None
    """Account of the pods, for what the cluster derives from it; they never get its token."""
    service: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """Type of the Service `fleet-<environment>`, which leads to what runs."""
    ingress: IngressRule | None = None
    image_pull_secrets: Annotated[tuple[ObjectName, ...], Field(max_length=8)] = ()
    """Secrets of the namespace with which nodes fetch the images."""
    runtime_class: ObjectName | None = None
    """Runtime of the pods, such as `gvisor`; unset is that of the cluster."""
    node_labels: dict[str, str] = Field(default_factory=dict)
    """Programs are placed only on nodes with these labels."""
    max_tree_bytes: Annotated[int, Field(ge=1 << 20, le=64 << 20)] = 16 << 20
    """The tree, packed: it is kept in the cluster's own store as long as it may run."""
