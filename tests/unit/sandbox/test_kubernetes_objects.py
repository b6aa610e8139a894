"""What is sent to a cluster, against strict models of its API; what it answers, against what runs are told."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ConfigError, InvalidInput, SandboxUnavailable
from fleet.policy.runs.spec import Limits, RunSpec
from fleet.sandbox.backends.kubernetes.api import cluster_client
from fleet.sandbox.backends.kubernetes.frames import BadFrame, FrameReader, unpack_returned
from fleet.sandbox.backends.kubernetes.inputs import (
    PART_BYTES,
    InputLimits,
    Packed,
    has_folder,
    pack_inputs,
    part_names,
    secret_manifests,
)
from fleet.sandbox.backends.kubernetes.job import (
    KubernetesPlace,
    job_manifest,
    labels_of,
    pod_of,
    reason_of,
)
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry
from tests.support.kubernetes_jobs import IMAGE, deny_all_policy

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(m|Ki|Mi|Gi)?$")]
Key = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: Name | None = None
    namespace: Name | None = None
    labels: dict[str, LabelValue] = {}
    annotations: dict[str, str] = {}


class SeccompProfile(Strict):
    type: Literal["RuntimeDefault", "Localhost"]
    localhostProfile: str | None = None


class PodSecurity(Strict):
    runAsNonRoot: Literal[True]
    runAsUser: Annotated[int, Field(ge=1)]
    runAsGroup: Annotated[int, Field(ge=1)]
    fsGroup: Annotated[int, Field(ge=1)]
    supplementalGroups: list[int]
    seccompProfile: SeccompProfile


class Capabilities(Strict):
    drop: list[Literal["ALL"]]


class ContainerSecurity(Strict):
    allowPrivilegeEscalation: Literal[False]
    privileged: Literal[False]
    readOnlyRootFilesystem: Literal[True]
    capabilities: Capabilities


class Resources(Strict):
    limits: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity]
    requests: dict[Literal["cpu", "memory", "ephemeral-storage"], Quantity]


class Mount(Strict):
    name: Name
    mountPath: Annotated[str, Field(pattern=r"^/[^:]*$")]
    readOnly: bool = False


class Container(Strict):
    name: Name
    image: str
    imagePullPolicy: Literal["IfNotPresent"]
    command: Annotated[list[str], Field(min_length=1)]
    workingDir: str
    stdin: Literal[False]
    tty: Literal[False]
    terminationMessagePolicy: Literal["File"]
    resources: Resources
    securityContext: ContainerSecurity
    volumeMounts: list[Mount]


class EmptyDir(Strict):
    medium: Literal["Memory"] | None = None
    sizeLimit: Quantity


class NamedSecret(Strict):
    name: Name


class SecretSource(Strict):
    secret: NamedSecret


class Projected(Strict):
    sources: list[SecretSource]
    defaultMode: Annotated[int, Field(ge=0, le=0o777)]


class SecretVolume(Strict):
    secretName: Name
    defaultMode: Annotated[int, Field(ge=0, le=0o777)]


class Volume(Strict):
    name: Name
    emptyDir: EmptyDir | None = None
    projected: Projected | None = None
    secret: SecretVolume | None = None


class Dns(Strict):
    nameservers: list[str]


class PodSpec(Strict):
    restartPolicy: Literal["Never"]
    terminationGracePeriodSeconds: Annotated[int, Field(ge=1)]
    automountServiceAccountToken: Literal[False]
    enableServiceLinks: Literal[False]
    hostNetwork: Literal[False]
    hostPID: Literal[False]
    hostIPC: Literal[False]
    dnsPolicy: Literal["None"]
    dnsConfig: Dns
    securityContext: PodSecurity
    containers: Annotated[list[Container], Field(min_length=1, max_length=1)]
    volumes: list[Volume]
    runtimeClassName: Name | None = None
    nodeSelector: dict[str, LabelValue] | None = None
    hostUsers: bool | None = None


class Template(Strict):
    metadata: Metadata
    spec: PodSpec


class JobSpec(Strict):
    backoffLimit: Literal[0]
    completions: Literal[1]
    parallelism: Literal[1]
    activeDeadlineSeconds: Annotated[int, Field(ge=1)]
    ttlSecondsAfterFinished: Annotated[int, Field(ge=0)]
    template: Template


class Job(Strict):
    apiVersion: Literal["batch/v1"]
    kind: Literal["Job"]
    metadata: Metadata
    spec: JobSpec


class Secret(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["Secret"]
    metadata: Metadata
    type: Literal["Opaque"]
    immutable: Literal[True]
    data: dict[Key, str]


class Selector(Strict):
    matchLabels: dict[str, LabelValue]


class PolicySpec(Strict):
    podSelector: Selector
    policyTypes: list[Literal["Ingress", "Egress"]]
    ingress: list[Any]
    egress: list[Any]


class NetworkPolicy(Strict):
    apiVersion: Literal["networking.k8s.io/v1"]
    kind: Literal["NetworkPolicy"]
    metadata: Metadata
    spec: PolicySpec


PLACE = KubernetesPlace("runs", IMAGE, runtime_class="gvisor", node_labels={"pool": "runs"}, has_user_namespaces=True)


def test_job_secrets_and_policy_are_what_the_api_takes() -> None:
    labels = labels_of("state", "run")
    packed = Packed(b"x" * (PART_BYTES + 1))
    document = job_manifest(
        PLACE, name="fleet-run-1", labels=labels, command=("python3",), inputs=part_names("in", packed),
        programs="in-inside", limits=Limits(), annotations={"swefleet.io/attempt": "1"},
    )  # fmt: skip
    job = Job.model_validate(document)
    secrets = [Secret.model_validate(s) for s in secret_manifests(packed, name="in", namespace="runs", labels=labels)]
    pod = job.spec.template.spec
    NetworkPolicy.model_validate(deny_all_policy("runs"))

    named = {s.secret.name for v in pod.volumes if v.projected for s in v.projected.sources}
    named |= {v.secret.secretName for v in pod.volumes if v.secret}
    assert named == {s.metadata.name for s in secrets}
    assert {v.name for v in pod.volumes} == {m.name for m in pod.containers[0].volumeMounts}
    keys = [key for s in secrets[1:] for key in s.data]
    assert keys == sorted(set(keys))
    assert b"".join(base64.b64decode(v) for s in secrets[1:] for v in s.data.values()) == packed.data
    assert "job_shim.py" in secrets[0].data


async def test_tree_is_packed_links_last_and_submodules_as_folders() -> None:
    blobs = MemoryBlobStore()
    tree = {
        "a": FileEntry("120000", await blobs.put(b"z/file")),
        "sub": FileEntry("160000", digest_of(b"commit")),
        "z/file": FileEntry("100755", await blobs.put(b"text")),
    }
    limits = InputLimits(1 << 20, 1 << 20)
    packed = await pack_inputs(RunSpec(argv=("x",)), tree, blobs, command={}, repos=Path("/nowhere"), limits=limits)
    with tarfile.open(fileobj=io.BytesIO(packed.data)) as archive:
        names = archive.getnames()

    assert names == ["request.json", "workspace/sub", "workspace/z/file", "workspace/a"]
    assert [has_folder(tree, cwd) for cwd in (".", "z", "sub", "a", "no")] == [True, True, True, False, False]


async def test_stdin_over_its_cap_is_refused() -> None:
    blobs = MemoryBlobStore()
    spec = RunSpec(argv=("x",), stdin=await blobs.put(b"x" * 10_000_001))
    with pytest.raises(InvalidInput, match="10000001 bytes"):
        await pack_inputs(spec, {}, blobs, command={}, repos=Path("/nowhere"), limits=InputLimits(1 << 20, 1))


def archive_of(*members: tuple[str, bytes, Mapping[str, Any]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, content, fields in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in fields.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def test_returned_archive_is_files_links_and_known_names() -> None:
    packed = archive_of(
        ("files/a", b"a", {"mode": 0o755}),
        ("files/l", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("kept.json", b'["old"]', {}),
    )
    found = unpack_returned(packed, before={"old": FileEntry("100644", digest_of(b""))}, max_bytes=1000)

    assert found.files == {"a": ("100755", b"a"), "l": ("120000", b"/etc/passwd")}
    assert found.kept == ("old",)
    assert unpack_returned(b"", before={}, max_bytes=0).files == {}


@pytest.mark.parametrize(
    "packed",
    [
        b"no archive",
        archive_of(("files/../x", b"", {})),
        archive_of(("files//etc/passwd", b"", {})),
        archive_of(("elsewhere/x", b"", {})),
        archive_of(("files/.git/config", b"", {})),
        archive_of(("files/a", b"", {}), ("files/a", b"", {})),
        archive_of(("files/d", b"", {"type": tarfile.CHRTYPE})),
        archive_of(("files/h", b"", {"type": tarfile.LNKTYPE, "linkname": "files/a"})),
        archive_of(("files/large", b"x" * 2000, {})),
        archive_of(("kept.json", b'["stranger"]', {})),
        archive_of(("kept.json", b"[1]", {})),
        archive_of(("files/a", b"x" * 800, {}), ("files/b", b"x" * 800, {})),
        archive_of(("files/a", b"x" * 800, {}))[:-30],
    ],
    ids=["none", "up", "absolute", "top", "git", "twice", "device", "hard", "large", "kept", "list", "sum", "cut"],
)
def test_returned_archive_of_an_enemy_is_refused(packed: bytes) -> None:
    with pytest.raises(BadFrame):
        unpack_returned(packed, before={}, max_bytes=1000)


def test_frames_that_give_back_too_much_are_refused() -> None:
    reader = FrameReader(max_return_bytes=3)
    reader.feed(b"#1 b YWJj")
    with pytest.raises(BadFrame, match="more than 3"):
        reader.feed(b"#2 b YQ==")


def test_what_is_printed_beside_frames_is_kept_as_complaint() -> None:
    reader = FrameReader(max_return_bytes=3)

    assert reader.feed(b"exec format error") is None
    assert reader.complaint == "exec format error"


@pytest.mark.parametrize("document", [{}, {"status": None}, {"status": {"containerStatuses": "?", "conditions": [1]}}])
def test_pod_of_a_strange_document_is_one_that_waits(document: dict[str, Any]) -> None:
    assert pod_of(document).stage == "waiting"


def test_pod_that_is_gone_loses_its_run() -> None:
    assert reason_of(None) == "sandbox_lost"


@pytest.mark.parametrize(
    "url", ["http://example.org", "ftp://x", "https://user:pw@x", "https://x?q", "https://x:port", ""]
)
def test_address_that_would_show_the_token_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        cluster_client(url, token_file=None, ca_file=None)


async def test_missing_token_and_certificates_are_named(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="certificates"):
        cluster_client("https://x", token_file=None, ca_file=tmp_path / "no")
    http = cluster_client("http://127.0.0.1:1", token_file=tmp_path / "no", ca_file=None)
    with pytest.raises(SandboxUnavailable, match="token file"):
        await http.ask("GET", "/")
