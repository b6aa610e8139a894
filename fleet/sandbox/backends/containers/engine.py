"""The command line of podman or docker, as argv lists and never through a shell."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import SandboxUnavailable
from fleet.sandbox.backends.containers.launch import SKELETON, EngineFacts, EngineName

_CALL_S = 60.0
_SHOWN = 1_000
_FOLDERS = (
    *("usr", "etc", "proc", "sys", "dev", "tmp", "run", "var", "home", "home/agent", "workspace", "inputs"),
    *("fleet", "fleet/inside", "toolchain", "repo.git"),
)
_FILES = ("fleet/filter", "fleet/stdin", "fleet/link")
_SYSTEM = ("bin", "sbin", "lib", "lib32", "libx32", "lib64")


class Engine:
    """Calls one engine. Each call is a process of its own with a deadline.

    Args:
        name: which engine.
        program: the program to call. Default: the one of that name on PATH.
    """

    def __init__(self, name: EngineName, *, program: Path | None = None) -> None:
        self.name: EngineName = name
        self._program = program
        self.env = {k: v for k, v in os.environ.items() if k in _ENGINE_VARIABLES or k.startswith("DOCKER_")}

    def program(self) -> Path:
        """Path of the engine's program; SandboxUnavailable when there is none."""
        path = self._program or shutil.which(self.name)
        if path is None:
            raise SandboxUnavailable(
                f"there is no {self.name} on this machine: install it (podman also needs runc), "
                "or choose sandbox.kind: bubblewrap in config/fleet.yaml",
                missing=self.name,
            )
        return Path(path)

    async def facts(self) -> EngineFacts:
        """What the engine says of itself. SandboxUnavailable when it does not answer."""
        info: dict[str, Any] = json.loads(await self.call(["info", "--format", "{{json .}}"]))
        return _podman_facts(info) if self.name == "podman" else _docker_facts(info)

    async def has_image(self, image: str) -> bool:
        """Whether the image is stored here."""
        try:
            await self.call(["image", "inspect", "--format", "{{.Id}}", image])
        except SandboxUnavailable:
            return False
        return True

    async def import_skeleton(self) -> str:
        """The skeleton is stored under the name that is returned, which holds its digest; no registry is asked."""
        content = skeleton()
        image = f"{SKELETON}:{digest_of(content).hex[:16]}"
        if not await self.has_image(image):
            await self.call(["import", "-", image], stdin=content)
        return image

    async def is_oom_killed(self, name: str) -> bool:
        """True when the engine saw that the kernel ended the container, or a process in it, for its memory limit."""
        try:
            return (await self.call(["inspect", "--format", "{{.State.OOMKilled}}", name])).strip() == "true"
        except SandboxUnavailable:
            return False

    async def first_pid(self, name: str) -> int:
        """Pid of the container's first process on this machine; 0 when it does not run."""
        try:
            return int(await self.call(["inspect", "--format", "{{.State.Pid}}", name]))
        except (SandboxUnavailable, ValueError):
            return 0

    async def remove(self, name: str) -> None:
        """The container is gone with every process in it; nothing happens when it is not known."""
        with contextlib.suppress(SandboxUnavailable):
            await self.call(["rm", "--force", *(("--time", "0") if self.name == "podman" else ()), name])

    async def names(self, labels: Mapping[str, str]) -> list[str]:
        """Names of all containers, running or not, that carry the labels."""
        filters = [a for key, value in labels.items() for a in ("--filter", f"label={key}={value}")]
        return (await self.call(["ps", "--all", *filters, "--format", "{{.Names}}"])).split()

    async def call(self, args: Sequence[str], *, stdin: bytes = b"") -> str:
        """Standard output of one call. SandboxUnavailable when it fails or does not end in time."""
        process = await self.start(args)
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), _CALL_S)
        except TimeoutError:
            raise self._failed(args, f"it did not end in {_CALL_S:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise self._failed(args, err.decode(errors="replace").strip()[-_SHOWN:])
        return out.decode(errors="replace")

    async def start(self, args: Sequence[str]) -> asyncio.subprocess.Process:
        """A client of the engine with pipes at all three streams."""
        pipe = asyncio.subprocess.PIPE
        try:
            return await asyncio.create_subprocess_exec(
                self.program(), *args, stdin=pipe, stdout=pipe, stderr=pipe, env=self.env, cwd="/",
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise self._failed(args, str(error)) from error

    def _failed(self, args: Sequence[str], why: str) -> SandboxUnavailable:
        return SandboxUnavailable(
            f"{self.name} {args[0]} failed: {why}. {_mend_for(why)}", missing=self.name, stderr=why
        )


_ENGINE_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR"),
        *("DBUS_SESSION_BUS_ADDRESS", "CONTAINER_HOST", "CONTAINERS_CONF"),
    }
)
_MENDS = (
    ("Cannot connect to the Docker daemon", "start the docker daemon, or let this user reach its socket"),
    ("cgroups in hybrid mode", "install runc: crun does not work with hybrid cgroups"),
    ('"runc" not found', "install runc"),
    ("runtime", "install runc"),
    ("newuidmap", "give the user a range in /etc/subuid and /etc/subgid, and install uidmap"),
)


def _mend_for(complaint: str) -> str:
    return next((mend for sign, mend in _MENDS if sign in complaint), "`fleet sandbox check` tries again")


def _podman_facts(info: Mapping[str, Any]) -> EngineFacts:
    host = info["host"]
    is_rootless = bool(host.get("security", {}).get("rootless", False))
    is_v1 = host.get("cgroupVersion") == "v1"
    version = str(info.get("version", {}).get("Version", ""))
    return EngineFacts("podman", version, is_rootless, controllers=_controllers(is_rootless, is_v1))


def _docker_facts(info: Mapping[str, Any]) -> EngineFacts:
    if info.get("ServerErrors"):
        why = "; ".join(info["ServerErrors"])
        raise SandboxUnavailable(f"docker has no server: {why}. {_mend_for(why)}", missing="docker", stderr=why)
    is_rootless = any("rootless" in str(option) for option in info.get("SecurityOptions") or ())
    is_v1 = str(info.get("CgroupVersion", "1")) == "1"
    version = str(info.get("ServerVersion", ""))
    return EngineFacts("docker", version, is_rootless, controllers=_controllers(is_rootless, is_v1))


def _controllers(is_rootless: bool, is_v1: bool) -> frozenset[str]:  # noqa: FBT001
    """Rootless engines ignore limit flags on cgroup v1 and say so on the standard error of every run."""
    return frozenset() if is_rootless and is_v1 else frozenset({"memory", "pids", "cpu"})


def skeleton(system: Path = Path("/")) -> bytes:
    """The image as a tar archive: mount points, and the links below / that this machine has into /usr."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in _FOLDERS:
            _add(archive, name, tarfile.DIRTYPE)
        for name in _FILES:
            _add(archive, name, tarfile.REGTYPE)
        _add(archive, "var/tmp", tarfile.SYMTYPE, "../tmp")
        for name in _SYSTEM:
            if (system / name).is_symlink():
                _add(archive, name, tarfile.SYMTYPE, str((system / name).readlink()).lstrip("/"))
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, kind: bytes, target: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    archive.addfile(entry)
