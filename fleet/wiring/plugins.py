"""Finds what entry points give the fleet, its own extensions and the packages of others, by group and name (RT-69)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from fleet.kernel.documents import problems_of
from fleet.kernel.errors import ConfigError
from fleet.kernel.plugin import Plugin

P = TypeVar("P")
AnyPlugin = TypeVar("AnyPlugin", bound=Plugin[Any, Any, Any])
Problem = Literal["unknown", "doubled", "broken", "wrong_type"]
"""What is wrong with an entry point; `problem` in the details of its ConfigError, beside `group` and `name`."""


@dataclass(frozen=True, slots=True)
class Group(Generic[P]):
    """One entry-point group, with what its entry points lead to."""

    name: str
    what: str
    """What an entry of it is, in messages: `blob store`."""
    type: type[P]
    shipped: tuple[str, ...] = ()
    """Names that are the fleet's own without an entry point."""


@dataclass(frozen=True, slots=True)
class Chosen(Generic[AnyPlugin]):
    """What the configuration names, with its options."""

    plugin: AnyPlugin
    options: Any
    """Of the type that the plug-in says."""


@cache
def _entries(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """The entry points by name; installed packages are looked through once per process and group."""
    entries: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, entry.value)):
        entries[entry.name] = (*entries.get(entry.name, ()), entry)
    return entries


def names(group: Group[Any]) -> frozenset[str]:
    """What is installed; nothing of it is imported. ConfigError when two packages bring one name."""
    for name, entries in _entries(group.name).items():
        if len(entries) > 1:
            raise _doubled(group, name)
    return frozenset(_entries(group.name))


@cache
def find(group: Group[P], name: str) -> P:
    """What the entry point of this name leads to; it alone is imported.

    Raises:
        ConfigError: there is none, there are two, or it leads to something else.
    """
    match _entries(group.name).get(name, ()):
        case (entry,):
            return _loaded(group, entry)
        case ():
            installed = ", ".join(sorted({*group.shipped, *_entries(group.name)})) or "none"
            text = f"there is no {group.what} {name!r}: use one of {installed}, or install its package"
            raise _error(group, name, "unknown", text)
        case _:
            raise _doubled(group, name)


def _loaded(group: Group[P], entry: EntryPoint) -> P:
    where = f"entry point {entry.name} = {entry.value} of {group.name} ({_package(entry)})"
    try:
        plugin: object = entry.load()
    except Exception as error:
        # A package of somebody else may fail in any way.
        text = f"{where} cannot be loaded: {type(error).__name__}: {error}; mend or uninstall it"
        raise _error(group, entry.name, "broken", text) from error
    if not isinstance(plugin, group.type):
        text = f"{where} is no {group.type.__name__}; mend or uninstall it"
        raise _error(group, entry.name, "wrong_type", text)
    return plugin


def choose(group: Group[AnyPlugin], kind: str, options: Mapping[str, Any], *, where: str) -> Chosen[AnyPlugin]:
    """The plug-in of this kind with its options, checked.

    Args:
        where: the options stand, for messages: `fleet.yaml: blobs`.

    Raises:
        ConfigError: see `find`; or the plug-in has another name than its entry point; or an option is wrong, and then
            each is named without its value.
    """
    try:
        plugin = find(group, kind)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", **error.details) from error
    if plugin.name != kind:
        raise _error(group, kind, "wrong_type", f"{group.what} {kind!r} calls itself {plugin.name!r}: name both alike")
    try:
        checked = TypeAdapter(plugin.options).validate_python(dict(options), extra="forbid")
    except ValidationError as error:
        problems = problems_of(error)
        listed = "; ".join(f"{problem.path}: {problem.reason}" for problem in problems)
        details = [problem._asdict() for problem in problems]
        raise ConfigError(f"{where}: options of {group.what} {kind!r}: {listed}", problems=details) from error
    return Chosen(plugin, checked)


def _doubled(group: Group[Any], name: str) -> ConfigError:
    whose = ", ".join(sorted(_package(entry) for entry in _entries(group.name)[name]))
    return _error(group, name, "doubled", f"two packages bring a {group.what} {name!r} ({whose}): uninstall one")


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown package"


def _error(group: Group[Any], name: str, problem: Problem, text: str) -> ConfigError:
    allowed = sorted({*group.shipped, *_entries(group.name)})
    return ConfigError(text, group=group.name, name=name, problem=problem, allowed=allowed)
