"""Settings that decide how work is judged, where they stand in files that hold other things too. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from configparser import Error as IniError
from tomllib import loads
from typing import Any, cast

from tomlkit import parse, table
from tomlkit.exceptions import TOMLKitError

_MAX_CHARS = 200_000
_PYPROJECT: tuple[tuple[str, ...], ...] = (
    ("tool", "pytest"),
    ("tool", "coverage"),
    ("tool", "ruff"),
    ("project", "entry-points", "pytest11"),
)
_INI_SECTION = re.compile(r"tool:pytest|pytest|(?:tool:)?coverage:\S+|flake8|options\.entry_points")
_PACKAGE = ("jest", "mocha", "vitest", "ava", "tap", "nyc", "c8", "eslintConfig", "xo")
_PACKAGE_SCRIPT = re.compile(r"(?:pre|post)?test(?:[:.-].*)?|(?:pre|post)?lint(?:[:.-].*)?")
_NEVER: dict[str, Any] = {}


def holds_settings(path: str) -> bool:
    """Whether a file of this name may hold such settings beside others."""
    return path.rpartition("/")[2] in _MERGED


def with_settings_of(path: str, base: str, head: str) -> str:
    """The head's text with the settings of the base; "" when nothing is left of it.

    A head that cannot be read as what it is gives way to the base.

    Args:
        base: text of the file there; "" where there is none.
        head: as `base`.
    """
    if base == head:
        return head
    if len(head) > _MAX_CHARS or len(base) > _MAX_CHARS:
        return base
    try:
        return _MERGED[path.rpartition("/")[2]](base, head)
    except (ValueError, TypeError, KeyError, RecursionError, IniError, TOMLKitError):
        return base


def _pyproject(base: str, head: str) -> str:
    old, new = loads(base), loads(head)
    wanted = {keys: _at(old, keys) for keys in _PYPROJECT}
    if all(_at(new, keys) == value for keys, value in wanted.items()):
        return head
    document, source = parse(head), parse(base)
    for keys, value in wanted.items():
        if _at(new, keys) == value:
            continue
        _remove(document, keys)
        if value is not None:
            _put(document, keys, _at(source, keys))
    text: str = document.as_string()
    merged = loads(text)
    # What a library makes of odd tables is looked at again: the settings are the base's, and all else is the head's.
    is_theirs = all(_at(merged, keys) == value for keys, value in wanted.items())
    if not is_theirs or _without(merged, _PYPROJECT) != _without(new, _PYPROJECT):
        raise ValueError("the settings do not come apart")
    return text if text.strip() else ""


def _at(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = cast("Mapping[str, Any]", value)[key]
    return value


def _remove(document: Any, keys: tuple[str, ...]) -> None:
    above = _at(document, keys[:-1])
    if isinstance(above, Mapping) and keys[-1] in above:
        del cast("dict[str, Any]", above)[keys[-1]]


def _put(document: Any, keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        if key not in document:
            document[key] = table(is_super_table=True)
        document = document[key]
    document[keys[-1]] = value


def _without(values: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """The values without these, and without what holds nothing else."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = tuple(path[1:] for path in paths if path[0] == key)
        if () in inner:
            continue
        if inner and isinstance(value, dict):
            value = _without(cast("dict[str, Any]", value), inner)
            if not value:
                continue
        found[key] = value
    return found


def _ini(base: str, head: str) -> str:
    old, new = _sections(base), _sections(head)
    theirs = [text for name, text in old if _is_judging(name)]
    if [text for name, text in new if _is_judging(name)] == theirs and _read(head) == _read(base):
        return head
    own = "".join(text for name, text in new if not _is_judging(name))
    merged = "\n\n".join(part for part in (own.strip("\n"), "".join(theirs).strip("\n")) if part)
    merged = f"{merged}\n" if merged else ""
    # Two readers of this form disagree on what begins a section: both must find the base's settings and no others.
    if _read(merged) != _read(base) or any(_is_judging(line.strip()[1:-1]) for line in own.split("\n")):
        raise ValueError("the settings do not come apart")
    return merged


def _sections(text: str) -> list[tuple[str, str]]:
    """Name and text of each section in order; the name is "" before the first one."""
    found, name, lines = list[tuple[str, str]](), "", list[str]()
    for line in text.replace("\r\n", "\n").splitlines(keepends=True):
        if line.startswith("[") and "]" in line:
            found.append((name, "".join(lines)))
            name, lines = line[1 : line.rindex("]")], []
        lines.append(line)
    return [*found, (name, "".join(lines))]


def _is_judging(name: str) -> bool:
    return _INI_SECTION.fullmatch(name.strip()) is not None


def _read(text: str) -> dict[str, dict[str, str]]:
    """The settings as the standard library reads them."""
    parser = ConfigParser(interpolation=None, strict=False)
    parser.read_string(text)
    return {name: dict(parser.items(name)) for name in parser.sections() if _is_judging(name)}


def _package(base: str, head: str) -> str:
    old, new = json.loads(base or "{}"), json.loads(head or "{}")
    if not isinstance(old, dict) or not isinstance(new, dict):
        raise TypeError("no object")
    merged = _package_with(cast("dict[str, Any]", old), cast("dict[str, Any]", new))
    if merged == new:
        return head
    indent = re.search(r"\n([ \t]+)\"", head or base)
    text = json.dumps(merged, indent=indent.group(1) if indent else 2, ensure_ascii=False)
    return f"{text}\n" if merged else ""


def _package_with(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = {key: value for key, value in new.items() if key not in _PACKAGE}
    merged |= {key: value for key, value in old.items() if key in _PACKAGE}
    before, after = old.get("scripts", _NEVER), new.get("scripts", _NEVER)
    if not isinstance(before, dict) or not isinstance(after, dict):
        raise TypeError("scripts are no object")
    before, after = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
    scripts = {name: line for name, line in after.items() if not _PACKAGE_SCRIPT.fullmatch(name)}
    scripts |= {name: line for name, line in before.items() if _PACKAGE_SCRIPT.fullmatch(name)}
    if scripts != after:
        merged["scripts"] = {name: scripts[name] for name in (*after, *before) if name in scripts}
        if not merged["scripts"]:
            del merged["scripts"]
    return merged


_MERGED: Mapping[str, Callable[[str, str], str]] = {
    "pyproject.toml": _pyproject,
    "setup.cfg": _ini,
    "tox.ini": _ini,
    "package.json": _package,
}
