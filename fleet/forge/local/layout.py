"""Where the parts of a local repository lie, read as plain files: git never runs on a host (S21-S23)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fleet.kernel.errors import InvalidInput

_SECTION = re.compile(r'\[\s*([A-Za-z0-9.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\](.*)')
_MAX_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class RepositoryLayout:
    """A repository: `git_dir` holds HEAD, `common_dir` objects and refs (another one for a linked worktree)."""

    git_dir: Path
    common_dir: Path
    worktree: Path | None

    @property
    def objects(self) -> Path:
        """The object store."""
        return self.common_dir / "objects"


def find_repository(url: str) -> RepositoryLayout:
    """The repository at a path or `file://` URL.

    Raises:
        InvalidInput: nothing there, no repository, or one of a format that is not read here; says what to do.
    """
    path = _local_path(url)
    if not path.is_dir():
        raise InvalidInput(f"{url} does not exist or is no folder: name the folder of a git repository", url=url)
    layout = _worktree_layout(path) or _bare_layout(path)
    if layout is None or not (layout.git_dir / "HEAD").is_file():
        above = next((str(p) for p in path.resolve().parents if (p / ".git" / "HEAD").is_file()), None)
        mend = f"name its top folder {above}" if above else "run `git init`, `git add -A` and `git commit` there first"
        raise InvalidInput(f"{url} is not a git repository: {mend}", url=url)
    _check_format(layout, url)
    return layout


def _local_path(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).absolute()
    if "://" in url or "\0" in url or not url:
        raise InvalidInput(f"{url[:200]!r} is not local: name a folder or a file:// URL", url=url[:200])
    return Path(url).expanduser().absolute()


def _worktree_layout(path: Path) -> RepositoryLayout | None:
    dot_git = path / ".git"
    if dot_git.is_file():
        dot_git = _pointer(dot_git, "gitdir:")
    return RepositoryLayout(dot_git, _common_dir(dot_git), path) if dot_git.is_dir() else None


def _bare_layout(path: Path) -> RepositoryLayout | None:
    is_bare = (path / "objects").is_dir() and (path / "refs").is_dir()
    return RepositoryLayout(path, path, None) if is_bare else None


def _common_dir(git_dir: Path) -> Path:
    pointer = git_dir / "commondir"
    return _pointer(pointer, "") if pointer.is_file() else git_dir


def _pointer(file: Path, prefix: str) -> Path:
    """The folder that a one-line file names, relative to the file."""
    line = file.read_bytes()[:4096].decode("utf-8", "surrogateescape").split("\n", 1)[0].strip()
    if not line.startswith(prefix) or "\0" in line:
        raise InvalidInput(f"{file} does not start with '{prefix}': this is no git repository", path=str(file))
    return (file.parent / line.removeprefix(prefix).strip()).resolve()


def _check_format(layout: RepositoryLayout, url: str) -> None:
    settings = _settings(layout.common_dir / "config")
    object_format = settings.get("extensions.objectformat", "sha1").lower()
    storage = settings.get("extensions.refstorage", "files").lower()
    if object_format != "sha1":
        raise InvalidInput(f"{url} uses object format {object_format}: only sha1 repositories are read", url=url)
    if storage != "files" or (layout.common_dir / "reftable").exists():
        mend = "run `git refs migrate --ref-format=files` there"
        raise InvalidInput(f"{url} keeps its refs as {storage}: {mend}", url=url)
    if (layout.objects / "info" / "alternates").is_file():
        mend = "run `git repack -a -d` there and remove objects/info/alternates, or clone it without --shared"
        raise InvalidInput(f"{url} borrows objects of another repository: {mend}", url=url)
    is_partial = "extensions.partialclone" in settings or any(layout.objects.glob("pack/*.promisor"))
    if is_partial:
        raise InvalidInput(f"{url} is a partial clone, so files are missing: run `git fetch --refetch` there", url=url)


def _settings(config: Path) -> Mapping[str, str]:
    """`section.key` -> value of a git config file, as far as plain text goes; nothing is included or run."""
    try:
        text = config.read_bytes()[:_MAX_CONFIG].decode("utf-8", "replace")
    except OSError:
        return {}
    settings: dict[str, str] = {}
    section = ""
    for line in text.splitlines():
        if match := _SECTION.match(line.strip()):
            section, line = match[1].lower(), match[3]
        key, _, value = line.strip().partition("=")
        if key and not key.startswith(("#", ";", "[")):
            settings[f"{section}.{key.strip().lower()}"] = value.split("#")[0].split(";")[0].strip().strip('"')
    return settings
