"""What a run starts with, as Secrets of Kubernetes: the scripts, and one gzipped tar in parts (inside/job_shim.py)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.policy.runs.spec import BlobMount, RepoMount, RunSpec
from fleet.sandbox.backends.request import MAX_STDIN_BYTES
from fleet.sandbox.folders.stage import INSIDE
from fleet.sandbox.folders.tree_writer import check_tree
from fleet.trees.port import BlobStore
from fleet.trees.tree import Tree

PART_BYTES = 700_000
"""Of one Secret: base64 makes a third more of it, and an object may have 1 MiB together."""
_OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class InputLimits:
    """How much may go in and come out of one run, packed, in bytes."""

    max_input_bytes: int
    max_return_bytes: int


@dataclass(frozen=True, slots=True)
class Packed:
    """The archive of a run's inputs."""

    data: bytes

    @property
    def sha256(self) -> str:
        """64 hex digits; the shim starts nothing when what it finds has another."""
        return hashlib.sha256(self.data).hexdigest()


def inside_files() -> dict[str, bytes]:
    """Name -> content of the scripts that a run finds at /fleet/inside."""
    return {p.name: p.read_bytes() for p in sorted(INSIDE.iterdir()) if p.is_file()}


async def pack_inputs(
    spec: RunSpec, tree: Tree, blobs: BlobStore, *, command: Mapping[str, Any], repos: Path, limits: InputLimits
) -> Packed:
    """The run's tree, mounts and input, packed.

    Args:
        command: `argv`, `env`, `files`: every reference to a secret resolved.
        repos: where staged repositories lie; the one that is mounted is there.

    Raises:
        InvalidInput: it is over the limit, the tree cannot exist, or the input is over 10 MB.
        ArtifactNotFound: a blob is not in the store.
    """
    check_tree(tree)
    packer = _Packer(limits.max_input_bytes)
    packer.add("request.json", json.dumps(_request(spec, command, limits)).encode())
    if spec.stdin is not None:
        packer.add("stdin", _checked_stdin(await blobs.get(spec.stdin)))
    await packer.add_tree(tree, blobs)
    for mount in spec.mounts:
        if isinstance(mount, BlobMount):
            packer.add(mount.target.lstrip("/"), await blobs.get(mount.blob))
        else:
            packer.add_repo(repos, mount)
    return Packed(packer.finish())


async def pack_tree(tree: Tree, blobs: BlobStore, *, max_bytes: int, setting: str) -> Packed:
    """A tree alone, packed: the same tree always gives the same bytes.

    Raises:
        InvalidInput: it is over the limit, which this setting raises, or the tree cannot exist.
        ArtifactNotFound: a blob is not in the store.
    """
    check_tree(tree)
    packer = _Packer(max_bytes, setting=setting)
    await packer.add_tree(tree, blobs)
    return Packed(packer.finish())


def _request(spec: RunSpec, command: Mapping[str, Any], limits: InputLimits) -> dict[str, Any]:
    given = spec.limits
    names = ("overall_s", "idle_s", "memory_bytes", "pids", "disk_bytes", "output_bytes", "grace_s")
    rlimits = {"nofile": _OPEN_FILES, "core": 0, "fsize": given.file_bytes, "memlock": 65_536}
    return {
        **command,
        "cwd": f"/workspace/{spec.cwd}",
        "limits": {name: getattr(given, name) for name in names},
        "rlimits": rlimits,
        "artifacts": list(spec.artifacts),
        "keep_tree": spec.keep_tree,
        "discard": list(spec.discard),
        "max_return_bytes": limits.max_return_bytes,
    }


def _checked_stdin(content: bytes) -> bytes:
    if len(content) > MAX_STDIN_BYTES:
        raise InvalidInput(
            f"stdin of the run has {len(content)} bytes, over {MAX_STDIN_BYTES}: put it into a file of the tree",
            field="stdin",
        )
    return content


class _Packer:
    """A gzipped tar in memory that refuses to grow over its limit."""

    def __init__(self, max_bytes: int, *, setting: str = "sandbox.backend.max_input_bytes") -> None:
        self._max_bytes, self._setting = max_bytes, setting
        self._file = io.BytesIO()
        # Without the time of day: the same contents are the same bytes.
        self._zip = gzip.GzipFile(fileobj=self._file, mode="wb", compresslevel=6, mtime=0)
        self._archive = tarfile.open(fileobj=self._zip, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    async def add_tree(self, tree: Tree, blobs: BlobStore) -> None:
        # Links come last, so that no file is ever written through one.
        for path, entry in sorted(tree.items(), key=lambda item: (item[1].mode == "120000", item[0])):
            if entry.mode == "160000":
                self.add_folder(f"workspace/{path}")
            elif entry.mode == "120000":
                self.add_link(f"workspace/{path}", await blobs.get(entry.blob))
            else:
                self.add(f"workspace/{path}", await blobs.get(entry.blob), is_program=entry.mode == "100755")

    def add(self, name: str, content: bytes, *, is_program: bool = False) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o755 if is_program else 0o644
        self._archive.addfile(member, io.BytesIO(content))
        self._check()

    def add_folder(self, name: str) -> None:
        member = tarfile.TarInfo(name)
        member.type = tarfile.DIRTYPE
        self._archive.addfile(member)

    def add_link(self, name: str, target: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(target)
        self._archive.addfile(member)

    def add_repo(self, repos: Path, mount: RepoMount) -> None:
        root = repos / mount.repo
        for path in sorted(root.rglob("*")):
            name = f"repo/{path.relative_to(root)}"
            if path.is_dir():
                self.add_folder(name)
            elif path.is_file():
                self.add(name, path.read_bytes())

    def finish(self) -> bytes:
        self._archive.close()
        self._zip.close()
        self._check()
        return self._file.getvalue()

    def _check(self) -> None:
        if self._file.tell() > self._max_bytes:
            raise InvalidInput(
                f"the tree and what goes with it have over {self._max_bytes} bytes packed, more than a pod is given: "
                f"raise {self._setting}, or run it where no pod is needed",
                field="tree",
                max_bytes=self._max_bytes,
            )


def part_names(name: str, packed: Packed) -> list[str]:
    """Names of the Secrets that hold the parts, in their order."""
    return [f"{name}-{number:03d}" for number in range(max(1, -(-len(packed.data) // PART_BYTES)))]


def secret_manifests(packed: Packed, *, name: str, namespace: str, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The Secrets of one run, without their owner: its scripts (`<name>-inside`) and the parts of its inputs.

    Raises:
        SandboxUnavailable: the scripts do not fit into one Secret.
    """
    scripts = inside_files()
    if sum(map(len, scripts.values())) > PART_BYTES:
        raise SandboxUnavailable(
            f"the scripts for inside have over {PART_BYTES} bytes and fit into no Secret: put them into the image",
            missing="inside",
        )
    contents = [{f"part-{n:06d}": part} for n, part in enumerate(parts_of(packed.data))]
    named = zip((f"{name}-inside", *part_names(name, packed)), (scripts, *contents), strict=True)
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret, "namespace": namespace, "labels": dict(labels)},
            "type": "Opaque",
            "immutable": True,
            "data": {key: base64.b64encode(value).decode("ascii") for key, value in data.items()},
        }
        for secret, data in named
    ]


def parts_of(data: bytes) -> Sequence[bytes]:
    """The archive in pieces, each of which fits into one Secret; at least one."""
    return [data[start : start + PART_BYTES] for start in range(0, max(len(data), 1), PART_BYTES)]


def has_folder(tree: Tree, cwd: str) -> bool:
    """True when the folder exists in the tree without following a link."""
    is_submodule = cwd in tree and tree[cwd].mode == "160000"
    return cwd == "." or is_submodule or any(path.startswith(f"{cwd}/") for path in tree)
