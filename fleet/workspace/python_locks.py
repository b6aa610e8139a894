"""The requirements of a Python repository as pip reads them, from whichever file declares or locks them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as SettingsError
from tomllib import loads
from typing import Any, NamedTuple, cast

from fleet.kernel.errors import InvalidInput

_TESTING = re.compile(r"(dev|develop|development|test|tests|testing|check|ci)", re.IGNORECASE)
_REQUIREMENTS = re.compile(
    r"((dev|test|tests|testing|ci)[-_.])?requirements([-_.](dev|test|tests|testing|ci|base|all))?\.(txt|in)"
    r"|requirements/[A-Za-z0-9._-]+\.txt",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OWN_TOOLS = frozenset({"pytest", "coverage", "ruff"})
_ADDRESSES = ("--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--trusted-host", "--no-index", "--pre")
_MOST_LINES = 5_000


class PythonNeeds(NamedTuple):
    """What pip is asked for."""

    source: str
    """The file that said it, with others after commas."""
    lines: tuple[str, ...]
    locked: bool

    @property
    def is_brought(self) -> bool:
        """Whether the fleet's own tools are all that is asked for."""
        names = [_NAME.match(line) for line in self.lines]
        return all(m is not None and normal(m[0]) in _OWN_TOOLS for m in names)


def normal(name: str) -> str:
    """The name of a distribution as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_python_needs(files: Mapping[str, bytes]) -> PythonNeeds | None:
    """What the manifests and lockfiles of one folder ask for; None when they ask for nothing.

    Args:
        files: name below the folder -> content.

    Raises:
        InvalidInput: a file is no TOML, or asks for what comes from no registry; `file` names it.
    """
    for name, read in (("uv.lock", _uv_lines), ("poetry.lock", _poetry_lines)):
        if name in files:
            pinned = _distinct(read(_toml(name, files[name])))
            return PythonNeeds(name, pinned, locked=True) if pinned else None
    sources: list[str] = []
    lines: list[str] = []
    for name, read in (("pyproject.toml", _pyproject_lines), ("setup.cfg", _setup_lines)):
        if name in files and (more := list(read(files[name]))):
            sources.append(name)
            lines += more
    for name in sorted(files):
        if _REQUIREMENTS.fullmatch(name) and not (name.endswith(".in") and f"{name[:-3]}.txt" in files):
            more = list(_file_lines(name, files, ()))
            sources += [name] if more else []
            lines += more
    if not lines and b"install_requires" in files.get("setup.py", b""):
        raise _unreadable("setup.py", "it lists its packages in code: list them in requirements.txt")
    distinct = _distinct(lines)
    locked = bool(distinct) and all("==" in line or "--hash" in line for line in distinct)
    return PythonNeeds(", ".join(sources), distinct, locked=locked) if distinct else None


def _unreadable(name: str, why: str) -> InvalidInput:
    return InvalidInput(f"{name}: {why}, or name an environment of your own with --python", file=name)


def _toml(name: str, data: bytes) -> dict[str, Any]:
    try:
        return loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, f"it is no TOML ({str(error)[:200]}): mend it") from error


def _distinct(lines: Iterable[str]) -> tuple[str, ...]:
    distinct = tuple(dict.fromkeys(lines))
    if len(distinct) > _MOST_LINES:
        raise InvalidInput(f"more than {_MOST_LINES} requirements: name an environment of your own with --python")
    return distinct


def _table(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _rows(value: object) -> list[dict[str, Any]]:
    return [_table(row) for row in cast(list[object], value)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [one for one in cast(list[object], value) if isinstance(one, str)] if isinstance(value, list) else []


def _uv_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """All extras and groups of the projects that the lock is of, with hashes; markers are left to pip."""
    packages = _rows(document.get("package"))
    by_name: dict[str, list[dict[str, Any]]] = {}
    for package in packages:
        by_name.setdefault(str(package.get("name")), []).append(package)
    own = [p for p in packages if {"editable", "virtual", "directory"} & _table(p.get("source")).keys()]
    waiting = [edge for package in own for edge in _edges(package, every=True)]
    markers: dict[str, set[str]] = {}
    while waiting:
        edge = waiting.pop()
        for package in by_name.get(str(edge.get("name")), []):
            if package in own or edge.get("version", package.get("version")) != package.get("version"):
                continue
            key, marker = _pinned(package), str(edge.get("marker") or "")
            is_new = key not in markers
            markers.setdefault(key, set()).add(marker)
            asked = set(_texts(edge.get("extra")))
            optional = _table(package.get("optional-dependencies"))
            waiting += [e for extra in asked for e in _rows(optional.get(extra)) if is_new or str(e) not in markers]
            waiting += list(_edges(package, every=False)) if is_new else []
    for package in packages:
        key = _pinned(package)
        if key in markers:
            forks = _texts(package.get("resolution-markers"))
            yield _locked_line("uv.lock", package, markers[key], forks, _uv_hashes(package))


def _edges(package: Mapping[str, Any], *, every: bool) -> Iterator[dict[str, Any]]:
    yield from _rows(package.get("dependencies"))
    if every:
        for part in ("optional-dependencies", "dev-dependencies"):
            for rows in _table(package.get(part)).values():
                yield from _rows(rows)


def _pinned(package: Mapping[str, Any]) -> str:
    return f"{package.get('name')}=={package.get('version')}"


def _uv_hashes(package: Mapping[str, Any]) -> list[str]:
    files = [*_rows(package.get("wheels")), _table(package.get("sdist"))]
    return [str(file["hash"]) for file in files if file.get("hash")]


def _locked_line(
    name: str, package: Mapping[str, Any], markers: Iterable[str], forks: Sequence[str], hashes: Sequence[str]
) -> str:
    source = _table(package.get("source"))
    kind = str(source.get("type") or next(iter(source), "registry"))
    if kind not in ("registry", "legacy", "pypi", "supplemental"):
        raise _unreadable(name, f"{package.get('name')} comes from {kind}, which no registry has: depend on a release")
    conditions = sorted(set(markers))
    parts = [] if "" in conditions else [_any_of(conditions)]
    parts += [_any_of(forks)] if forks else []
    condition = f" ; {' and '.join(parts)}" if parts else ""
    return _pinned(package) + condition + "".join(f" --hash={one}" for one in sorted(set(hashes)))


def _any_of(conditions: Sequence[str]) -> str:
    return f"({' or '.join(f'({one})' for one in conditions)})" if len(conditions) > 1 else f"({conditions[0]})"


def _poetry_lines(document: Mapping[str, Any]) -> Iterator[str]:
    packages = _rows(document.get("package"))
    edges: dict[str, set[str]] = {}
    for package in packages:
        for name, wish in _table(package.get("dependencies")).items():
            wishes = _rows(wish) or [_table(wish)]
            edges.setdefault(normal(name), set()).update(str(one.get("markers") or "") for one in wishes)
    for package in packages:
        own = package.get("markers")
        groups = [str(one) for one in _table(own).values()] or ([own] if isinstance(own, str) and own else None)
        markers = set(groups) if groups else edges.get(normal(str(package.get("name"))), {""})
        hashes = [str(file["hash"]) for file in _rows(package.get("files")) if file.get("hash")]
        yield _locked_line("poetry.lock", package, markers, (), hashes)


def _pyproject_lines(data: bytes) -> Iterator[str]:
    document = _toml("pyproject.toml", data)
    project = _table(document.get("project"))
    own = normal(str(project.get("name", "")))
    yield from _texts(project.get("dependencies"))
    for name, lines in _table(project.get("optional-dependencies")).items():
        if _TESTING.fullmatch(name):
            # An extra may name others of the same project: those are taken as they are asked for.
            yield from _without_own(_texts(lines), own, _table(project.get("optional-dependencies")))
    groups = _table(document.get("dependency-groups"))
    for name in groups:
        if _TESTING.fullmatch(name):
            yield from _group_lines(name, groups, ())
    poetry = _table(_table(document.get("tool")).get("poetry"))
    tables = [poetry.get("dependencies"), poetry.get("dev-dependencies")]
    tables += [_table(group).get("dependencies") for group in _table(poetry.get("group")).values()]
    for table in tables:
        for name, wish in _table(table).items():
            if name != "python":
                yield _poetry_wish(name, wish)


def _without_own(lines: Iterable[str], own: str, extras: Mapping[str, Any]) -> Iterator[str]:
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)\s*\[([^\]]*)\]\s*", line)
        if match and own and normal(match[1]) == own:
            for extra in match[2].split(","):
                yield from (one for one in _texts(extras.get(extra.strip())) if not one.startswith(match[1]))
        else:
            yield line


def _group_lines(name: str, groups: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[str]:
    for entry in cast(list[object], groups.get(name) or []):
        if isinstance(entry, str):
            yield entry
        elif (other := _table(entry).get("include-group")) and other not in above and other in groups:
            yield from _group_lines(str(other), groups, (*above, name))


def _poetry_wish(name: str, wish: object) -> str:
    table = _table(wish)
    version = str(table.get("version", "*") if table else wish)
    if table and "version" not in table:
        raise _unreadable("pyproject.toml", f"{name} comes from {next(iter(table))}: depend on a release of it")
    extras = f"[{','.join(_texts(table.get('extras')))}]" if table.get("extras") else ""
    marker = f" ; {table['markers']}" if table.get("markers") else ""
    parts = [_poetry_version(one.strip()) for one in version.split(",")]
    return f"{name}{extras}{','.join(part for part in parts if part)}{marker}"


def _poetry_version(text: str) -> str:
    """`^1.2.3` and `~1.2` as the comparisons that they stand for."""
    if text in ("", "*"):
        return ""
    if text[0] not in "^~" or text.startswith("~="):
        return text if text[0] in "<>=!~" else f"=={text}"
    numbers = [int(part) for part in re.findall(r"\d+", text)] or [0]
    if text[0] == "~":
        place = min(1, len(numbers) - 1)
    else:
        place = next((n for n, part in enumerate(numbers) if part), len(numbers) - 1)
    above = [*numbers[:place], numbers[place] + 1]
    return f">={text[1:].strip()},<{'.'.join(map(str, above))}"


def _setup_lines(data: bytes) -> Iterator[str]:
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(data.decode(errors="replace"))
    except SettingsError:
        return
    lines = parser.get("options", "install_requires", fallback="").splitlines()
    if parser.has_section("options.extras_require"):
        for name, value in parser.items("options.extras_require"):
            lines += value.splitlines() if _TESTING.fullmatch(name) else []
    yield from (line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))


def _file_lines(name: str, files: Mapping[str, bytes], above: tuple[str, ...]) -> Iterator[str]:
    """The lines of a requirements file and of those that it includes, without addresses: those are the operator's."""
    text = files[name].decode(errors="replace").replace("\\\r\n", " ").replace("\\\n", " ")
    for raw in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not line or line.split("=", 1)[0].split()[0] in _ADDRESSES:
            continue
        if include := re.fullmatch(r"(?:-r|--requirement|-c|--constraint)[\s=]*(\S+)", line):
            other = _beside(name, include[1])
            if line.startswith(("-r", "--r")) and other in files and other not in above:
                yield from _file_lines(other, files, (*above, name))
        elif re.match(r"(-e\s*|--editable[\s=]*)?\.(/|\[|$)", line):
            continue  # the repository itself, which is not installed
        elif re.match(r"(-e\b|--editable|git\+|hg\+|svn\+|bzr\+|file:)", line) or re.search(
            r"@\s*(git|file)[+:]", line
        ):
            raise _unreadable(name, f"{line[:100]!r} comes from no registry: depend on a release of it")
        else:
            yield line


def _beside(name: str, other: str) -> str:
    parts = [*name.split("/")[:-1]]
    for part in other.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
