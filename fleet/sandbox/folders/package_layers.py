"""Environment layers on the disk of a node: the packages of one lockfile, bound read-only into the runs that name it.

layer-<language>-<key>/files      what was fetched
                      /record.json
                      /base-<commit>.json    how the tests of a commit end in it

They have a limit for each node; see the module `layer_book`.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import tarfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput, ToolFailed
from fleet.policy.runs.spec import OutputStream, RunResult, RunSpec
from fleet.policy.runs.toolchains import LayerName
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.toolchain import Toolchain, scratch
from fleet.sandbox.folders.layer_book import LayerBook, LayerLimits
from fleet.sandbox.folders.stage import make_readable
from fleet.sandbox.folders.tree_writer import write_files
from fleet.sandbox.folders.workspace import NO_SPACE, no_room
from fleet.trees.port import DiskUse
from fleet.trees.tree import Mode

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
