"""Environment layers on the disk of a node: the packages of one lockfile, bound read-only into the runs that name it.

layer-<language>-<key>/files      what was fetched
                      /record.json
                      /base-<commit>.json    how the tests of a commit end in it

They have a limit for each node. Beside each layer lies a file `.layer-<language>-<key>.use`. A run that has the layer
holds a shared lock on it, of whatever process it is; the lock ends with that process. Its time says when the layer was
used last. Who removes a layer holds the lock alone, so that no layer goes that a run has (RC-113).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import posixpath
import tarfile
import time
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput, SandboxUnavailable, ToolFailed
from fleet.policy.runs.spec import OutputStream, RunResult, RunSpec
from fleet.policy.runs.toolchains import LayerName
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.toolchain import Toolchain, scratch
from fleet.sandbox.folders.bases import size_below
from fleet.sandbox.folders.stage import make_readable
from fleet.sandbox.folders.tree_writer import write_files
from fleet.sandbox.folders.workspace import NO_SPACE, no_room, remove_shared_tree
from fleet.trees.port import DiskUse, Evicted
from fleet.trees.tree import Mode

_PREFIX = "layer-"
_GONE = ".gone-"
_EVICTED = ".layers-evicted.json"
_LOCK = ".layers.lock"
_TOLD = 20
"""Removals that are kept on record, the newest ones."""


class LayerLimits(NamedTuple):
    """What the environment layers of one node may take."""

    bytes: int = 20 << 30
    """On the disk; of those that are not in use the one goes first that was used longest ago."""
    idle_s: float = 86_400
    """Since its last run, for which a layer counts as in use: its story may be waiting for a person."""


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    used_at: float
    size: int


class LayerBook:
    """The layers below one folder, which several processes share. All methods block.

    Args:
        root: folder of the node's toolchains.
    """

    def __init__(self, root: Path, limits: LayerLimits) -> None:
        self._root, self._limits = root, limits
        # Layers are never changed, so that each is measured once.
        self._sizes: dict[str, int] = {}

    @contextlib.contextmanager
    def used(self, folder: str) -> Generator[None]:
        """The layer, where it is here, is not removed while the block lasts, and was used last at its end."""
        if not (self._root / folder).is_dir():
            yield
            return
        lock = self._locked(folder, fcntl.LOCK_SH)
        try:
            os.utime(lock)
            yield
        finally:
            with contextlib.suppress(OSError):
                os.utime(lock)
            os.close(lock)

    def usage(self) -> DiskUse:
        """How many layers there are, what they take, what of it is in use, and what was removed of late."""
        layers = self._layers()
        return DiskUse(
            "layers",
            sum(layer.size for layer in layers),
            sum(layer.size for layer in layers if self._is_in_use(layer)),
            len(layers),
            self._limits.bytes,
            folder=str(self._root),
            evicted=self._removals(),
        )

    def make_room(self, wanted: int = 0, *, is_full: bool = False) -> int:
        """The limit holds, with `wanted` bytes more, or on a full disk nothing is left that is not in use.

        Returns:
            Bytes that are missing all the same, because what is left is in use.
        """
        layers = sorted(self._layers(), key=lambda layer: layer.used_at)
        over = sum(layer.size for layer in layers) + wanted - self._limits.bytes
        for layer in layers:
            if over <= 0 and not is_full:
                break
            if not self._is_idle(layer):
                break  # those after it were used later still
            if self._remove(layer):
                over -= layer.size
        self._sweep()
        return max(0, over)

    def limit_reached(self, wanted: int) -> SandboxUnavailable:
        """The error of a layer for which there is no room, because those that are there are in use."""
        used, limits = sum(layer.size for layer in self._layers()), self._limits
        return SandboxUnavailable(
            f"environment layers in {self._root} that are in use take {used:,} bytes of {limits.bytes:,}, and one more "
            f"wants {wanted:,}: raise sandbox.disk.layers_bytes in fleet.yaml, or lower sandbox.disk.layers_idle_s "
            f"({limits.idle_s:.0f} s after its last run a layer may go), and let the story go on",
            missing="disk",
            used_bytes=used,
            limit_bytes=limits.bytes,
            wanted_bytes=wanted,
        )

    def _layers(self) -> list[_Layer]:
        found: list[_Layer] = []
        for place in self._places():
            # Another process may be removing it.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                size = self._sizes.get(place.name) or size_below(place)
                self._sizes[place.name] = size
                found.append(_Layer(place.name, self._used_at(place), size))
        return found

    def _places(self) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return [place for place in self._root.iterdir() if place.name.startswith(_PREFIX)]
        return []

    def _used_at(self, place: Path) -> float:
        with contextlib.suppress(FileNotFoundError):
            return self._use_file(place.name).stat().st_mtime
        return place.stat().st_mtime  # it is from before there were such files

    def _use_file(self, folder: str) -> Path:
        return self._root / f".{folder}.use"

    def _locked(self, folder: str, how: int) -> int:
        lock = os.open(self._use_file(folder), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, how)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _is_idle(self, layer: _Layer) -> bool:
        return time.time() - layer.used_at >= self._limits.idle_s

    def _is_in_use(self, layer: _Layer) -> bool:
        if not self._is_idle(layer):
            return True
        try:
            os.close(self._locked(layer.name, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            return True
        return False

    def _remove(self, layer: _Layer) -> bool:
        """Whether it is gone; a run may have it after all."""
        try:
            lock = self._locked(layer.name, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        gone = self._root / f"{_GONE}{layer.name}-{token_hex(4)}"
        try:
            # Since it was listed a run may have begun and ended in it.
            if time.time() - self._used_at(self._root / layer.name) < self._limits.idle_s:
                return False
            (self._root / layer.name).rename(gone)
        except FileNotFoundError:
            return True
        finally:
            os.close(lock)
        self._sizes.pop(layer.name, None)
        self._write_down(Evicted(layer.name.removeprefix(_PREFIX).replace("-", ":", 1), layer.size, _now()))
        remove_shared_tree(gone)
        return True

    def _sweep(self) -> None:
        """What a process that died left of a layer that it was removing."""
        for place in self._root.glob(f"{_GONE}*"):
            remove_shared_tree(place)

    def _removals(self) -> tuple[Evicted, ...]:
        # What cannot be read is no reason to fail: it only tells people of the past.
        with contextlib.suppress(OSError, ValueError, TypeError):
            return tuple(Evicted(**row) for row in json.loads((self._root / _EVICTED).read_bytes()))
        return ()

    def _write_down(self, removal: Evicted) -> None:
        lock = os.open(self._root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = [asdict(row) for row in (*self._removals(), removal)][-_TOLD:]
            fresh = self._root / f"{_EVICTED}.{token_hex(4)}"
            # On a full disk the layer goes all the same.
            with contextlib.suppress(OSError):
                fresh.write_text(json.dumps(rows))
                fresh.rename(self._root / _EVICTED)
        finally:
            os.close(lock)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_INSIDE = "/environment"


@dataclass(frozen=True, slots=True)
class MissingToolchain:
    """A toolchain that is configured and not on this machine: which program is missing, and what to do."""

    name: str
    message: str

    def result(self, spec: RunSpec) -> RunResult:
        """The result of a run that cannot have its programs: `image_unavailable`, nothing was started (RC-19)."""
        return RunResult(
            status="error",
            reason="image_unavailable",
            exit_code=None,
            stderr=OutputStream(head=f"{self.message}\n", total_bytes=len(self.message.encode()) + 1),
            tree_in=spec.tree,
            tree_out=spec.tree if spec.keep_tree else None,
            limits={"toolchain": self.message},
            backend="bubblewrap",
        )


class PackageLayers:
    """The layers of one node. Safe beside other processes with the same folder: a layer is there whole or not at all.

    Args:
        root: folder of the node's toolchains, which the users of runs can read.
    """

    def __init__(self, root: Path, limits: LayerLimits | None = None) -> None:
        self._root, self._book = root, LayerBook(root, limits or LayerLimits())

    def _place(self, name: LayerName) -> Path:
        return self._root / _folder(name)

    def record(self, name: LayerName, of: str = "record") -> bytes | None:
        """What was written down of the layer; None where it is not here, or nothing was.

        Who asks will use it: it was used last now.
        """
        with contextlib.suppress(FileNotFoundError), self._book.used(_folder(name)):
            return (self._place(name) / f"{of}.json").read_bytes()
        return None

    def used(self, name: LayerName) -> AbstractContextManager[None]:
        """The layer, where it is here, is not removed while the block lasts. Blocks while somebody removes it."""
        return self._book.used(_folder(name))

    def usage(self) -> DiskUse:
        """What the layers take on the disk, and which of them were removed of late. Blocks."""
        return self._book.usage()

    def make_room(self) -> None:
        """The limit holds, as far as layers are not in use. Blocks."""
        self._book.make_room()

    def keep(self, name: LayerName, archive: bytes, record: bytes) -> None:
        """The layer is here, with the files of the archive.

        Raises:
            ToolFailed: the archive holds what no layer may: links that lead out of it, devices, absolute paths.
            SandboxUnavailable: it has no room, within the limit of layers or on the disk.
        """
        target = self._place(name)
        if target.is_dir():
            return
        if self._book.make_room(len(archive)):
            raise self._book.limit_reached(len(archive))
        for is_last in (False, True):
            try:
                self._lay(name, target, archive, record)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
                if is_last:
                    raise no_room(self._root) from error
                # Layers are made again from the registries: better one of those than a story that stands still.
                self._book.make_room(is_full=True)
            else:
                break
        with self._book.used(_folder(name)):
            pass

    def _lay(self, name: LayerName, target: Path, archive: bytes, record: bytes) -> None:
        with scratch(target) as folder:
            files = folder / "files"
            files.mkdir()
            try:
                write_files(_files_of(archive), files, Identity(os.geteuid(), os.getegid(), is_dropped=False))
            except (tarfile.TarError, InvalidInput) as error:
                raise ToolFailed(f"the packages cannot be laid: {error}", layer=name.text) from error
            if name.language == "python":
                for program in ("python", "python3"):
                    (files / "bin" / program).unlink(missing_ok=True)
                    (files / "bin" / program).symlink_to("/toolchain/bin/python")
            make_readable(files)
            (folder / "record.json").write_bytes(record)

    def note(self, name: LayerName, of: str, content: bytes) -> None:
        """Something about the layer is written down beside it."""
        place = self._place(name) / f"{of}.json"
        fresh = place.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.rename(place)

    def toolchain(self, name: LayerName, base: Toolchain) -> Toolchain | MissingToolchain:
        """The programs of the language with the packages of the layer; MissingToolchain where the layer is not here."""
        files = self._place(name) / "files"
        if not files.is_dir():
            return MissingToolchain(
                name.text,
                f"the environment layer {name.text} is not on this node, or had to make room (`fleet status` says "
                "when): a story that is started on the repository makes it, once for each lockfile; a larger "
                "sandbox.disk.layers_bytes keeps it",
            )
        inside, path, env = _INSIDE, base.path, dict(base.env)
        match name.language:
            case "python":
                path, env["VIRTUAL_ENV"] = f"{_INSIDE}/bin:{path}", _INSIDE
            case "node":
                # Packages are looked for in every folder above a file, so the root has those of all.
                files, inside, path = files / "node_modules", "/node_modules", f"/node_modules/.bin:{path}"
            case "go":
                env |= {"GOMODCACHE": f"{_INSIDE}/mod", "GOPROXY": "off", "GOSUMDB": "off", "GOFLAGS": "-mod=readonly"}
            case "rust":
                env |= {"CARGO_HOME": f"{_INSIDE}/cargo", "CARGO_NET_OFFLINE": "true"}
        digest = digest_of_json({"layer": name.text, "programs": base.digest})
        return Toolchain((*base.binds, (files, inside)), path, tuple(env.items()), digest)


def _folder(name: LayerName) -> str:
    return f"layer-{name.language}-{name.key}"


def _files_of(archive: bytes) -> dict[str, tuple[Mode, bytes]]:
    """Mode and content of each file and link of an archive that is not compressed; folders come with their files.

    The packages wrote what is in it, so that nothing is unpacked by `tarfile`: see CVE-2025-4517.

    Raises:
        tarfile.TarError: no archive, or a member that is no file, folder or link within it.
    """
    files = dict[str, tuple[Mode, bytes]]()
    with tarfile.open(fileobj=BytesIO(archive), mode="r:") as opened:
        for member in opened:
            path = member.name.removeprefix("./")
            if member.isfile():
                content = opened.extractfile(member)
                assert content is not None
                files[path] = "100755" if member.mode & 0o100 else "100644", content.read()
            elif member.issym() and _stays_inside(path, member.linkname):
                files[path] = "120000", os.fsencode(member.linkname)
            elif member.islnk() and (linked := member.linkname.removeprefix("./")) in files:
                files[path] = files[linked]
            elif not member.isdir():
                raise tarfile.TarError(f"{member.name[:200]!r} is no file, folder or link within the packages")
    return files


def _stays_inside(path: str, target: str) -> bool:
    """Whether the link at `path` leads to a place beside or below its own top folder."""
    aim = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return not target.startswith("/") and aim != ".." and not aim.startswith("../")
