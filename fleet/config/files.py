"""The active config files: each from the overlay directory if it is there, else the packaged one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pydantic import BaseModel

from fleet.config.document import parse_document, validated
from fleet.config.retired import drop_retired, retired_warnings
from fleet.kernel.digest import digest_of
from fleet.kernel.documents import ConfigDocument
from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import Digest

M = TypeVar("M", bound=BaseModel)

# Folders where a site adds files of its own; everywhere else an unknown name is a typing error.
_OPEN_FOLDERS = frozenset({"cluster", "prompts"})
_SUFFIXES = frozenset({".yaml", ".yml", ".md"})


def packaged_directory() -> Path:
    """The config files that came with the program: `config/` of a checkout, `fleet/_config` of an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_config"
    return installed if installed.is_dir() else package.parent / "config"


@dataclass(frozen=True)
class ConfigFiles:
    """The config of one fleet. A file of the overlay replaces the packaged one as a whole; nothing is merged."""

    packaged: Path
    """Directory with a file of every name."""
    overlay: Path | None = None
    """Directory of the site (`FLEET_CONFIG`), or None."""
    kept: Mapping[str, bytes] = field(default_factory=dict[str, bytes], hash=False)
    """Contents that stand for active files, by name: those that a story began with (GL-23)."""

    def path(self, name: str) -> Path:
        """The active file of this name, e.g. `rigor.yaml` or `prompts/critique.md`.

        Raises:
            ConfigError: there is none, or the name leaves the directory.
        """
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts:
            raise ConfigError(f"config file name {name!r} leaves the config directory; use a name below it", file=name)
        for directory in self._directories():
            if (directory / name).is_file():
                return directory / name
        looked = " and ".join(str(directory) for directory in self._directories())
        raise ConfigError(f"config file {name} is missing; looked in {looked}", file=name)

    def read(self, name: str) -> bytes:
        """The bytes of the active file. Raises ConfigError when it cannot be read."""
        if name in self.kept:
            return self.kept[name]
        path = self.path(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", file=str(path)) from error

    def document(self, name: str) -> ConfigDocument:
        """The active YAML file as a mapping, without keys that went. Raises ConfigError naming file and line."""
        return drop_retired(parse_document(self.read(name), file=str(self.path(name))), name)

    def warnings(self) -> list[str]:
        """Keys of files of the site that have no effect any more, each with file, line and what to do."""
        names = [] if self.overlay is None else _names_below(self.overlay)
        return [line for n in names for line in retired_warnings(self.read(n), n, file=str(self.path(n)))]

    def place(self, name: str, path: str) -> str:
        """Where a setting of the active file stands, for messages: the file and, where it is given there, the line."""
        line = self.document(name).find_line(path)
        return str(self.path(name)) if line is None else f"{self.path(name)}, line {line}"

    def load(self, name: str, model: type[M]) -> M:
        """The active YAML file as this model. Raises ConfigError with file, line, path and reason of every problem."""
        return validated(model, self.document(name), file=str(self.path(name)))

    def names(self) -> list[str]:
        """Names of all active files, sorted, with `/` between folders.

        Raises:
            ConfigError: the overlay holds a file that replaces nothing (GL-18: an unknown name is an error).
        """
        shipped = _names_below(self.packaged)
        if self.overlay is None:
            return shipped
        own = _names_below(self.overlay)
        stray = [n for n in own if n not in shipped and PurePosixPath(n).parts[0] not in _OPEN_FOLDERS]
        if stray:
            raise ConfigError(
                f"{self.overlay / stray[0]} replaces no config file; known names: {', '.join(shipped)}",
                file=str(self.overlay / stray[0]),
                allowed=shipped,
            )
        return sorted({*shipped, *own})

    def digests(self) -> dict[str, Digest]:
        """Digest of the bytes of every active file by name, as a new story records them (GL-23)."""
        return {name: digest_of(self.read(name)) for name in self.names()}

    def _directories(self) -> tuple[Path, ...]:
        return (self.packaged,) if self.overlay is None else (self.overlay, self.packaged)


def _names_below(directory: Path) -> list[str]:
    paths = (path for path in directory.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
    return sorted(path.relative_to(directory).as_posix() for path in paths)
