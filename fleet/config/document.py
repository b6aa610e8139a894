"""Config files as strict YAML: safe types only, no duplicate key, bounded size (GL-22)."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from copy import deepcopy
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from fleet.kernel.documents import ConfigDocument, WrongKey, problems_of, wrong_file
from fleet.kernel.errors import ConfigError

MAX_DOCUMENT_BYTES = 1_048_576
"""A config file over 1 MiB is refused."""
_MAX_VALUES = 100_000
_MAX_DEPTH = 100

M = TypeVar("M", bound=BaseModel)


# libyaml, where PyYAML was built with it, reads a file in a fifth of the time.
_Safe = cast(type[yaml.SafeLoader], getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class _StrictLoader(_Safe):
    """Safe YAML that refuses what reads one way and loads another: duplicate keys and keys that are no text."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        assert isinstance(node, yaml.MappingNode)
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = cast(Hashable, self.construct_object(key_node, deep=True))  # pyright: ignore[reportUnknownMemberType]
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is no text; put it in quotes", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_document(raw: bytes, *, file: str) -> ConfigDocument:
    """The mapping that a YAML file holds, the caller's own; an empty file is an empty mapping.

    Raises:
        ConfigError: not UTF-8, not YAML, over the size limit, a key twice, or no mapping; names file and line.
    """
    return ConfigDocument(deepcopy(_parsed(raw, file)), partial(_line_of, raw))


def node_of(raw: bytes) -> yaml.Node | None:
    """The nodes of a document that `parse_document` takes, with the lines where they stand."""
    loader = _StrictLoader(raw.decode())
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _line_of(raw: bytes, path: str) -> int | None:
    """The line of the key or entry at this path, or of the nearest above it that the file has."""
    node, line = node_of(raw), None
    parts = [part for part in re.split(r"[.\[\]]+", re.sub(r" \(.*?\)", "", path)) if part]
    while parts:
        taken = 1
        if isinstance(node, yaml.SequenceNode) and parts[0].isdecimal() and int(parts[0]) < len(node.value):
            node = node.value[int(parts[0])]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            below = {key.value: (key, value) for key, value in node.value}
            # A key may hold dots. A part that is no key is the kind of a variant, which a path of pydantic names too.
            sizes = (size for size in range(len(parts), 0, -1) if ".".join(parts[:size]) in below)
            if size := next(sizes, 0):
                key, node = below[".".join(parts[:size])]
                line, taken = key.start_mark.line + 1, size
        parts = parts[taken:]
    return line


@lru_cache(maxsize=32)
def _parsed(raw: bytes, file: str) -> dict[str, Any]:
    # Parts of one process read the same files again and again, and YAML takes most of the time that they need to start.
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise _error(file, "", f"has {len(raw)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        text = raw.decode()
        if _is_too_deep(text):
            raise _error(file, "", f"holds lists and keys that lie more than {_MAX_DEPTH} deep")
        loaded: object = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise _error(file, "", f"is not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _error(file, f"line {line}", error.problem or "is not YAML") from error
    except yaml.YAMLError as error:
        raise _error(file, "", f"is not YAML ({type(error).__name__})") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise _error(file, "", f"must hold keys and values, not a {type(loaded).__name__}")
    if _is_too_large(cast(object, loaded)):
        raise _error(file, "", f"holds more than {_MAX_VALUES} values once its aliases are written out")
    return cast(dict[str, Any], loaded)


def _is_too_deep(text: str) -> bool:
    """libyaml composes a document by recursion on the stack of the process, which would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Safe):  # pyright: ignore[reportUnknownVariableType]
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False


def _is_too_large(document: object) -> bool:
    """A few lines of aliases can stand for more values than memory holds, or for a value within itself."""
    waiting, seen = [document], 0
    while waiting:
        seen += 1
        if seen > _MAX_VALUES:
            return True
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(cast(dict[str, object], value).values())
        elif isinstance(value, list):
            waiting.extend(cast(list[object], value))
    return False


def validated(model: type[M], document: Mapping[str, Any], *, file: str) -> M:
    """The document as the model.

    Raises:
        ConfigError: names the file and, for every problem, line, path and reason (details: problems).
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise wrong_file(file, problems_of(error), document) from error


def _error(file: str, path: str, reason: str) -> ConfigError:
    where = f"{file}, {path}" if path else file
    problems = [WrongKey(path, reason)._asdict()]
    return ConfigError(f"{where}: {reason}; correct the file and start again", file=file, problems=problems)
