"""Keys that earlier versions read or documented and this one does not: they are passed over, with a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

import yaml

from fleet.config.document import node_of
from fleet.kernel.documents import ConfigDocument


class Retired(NamedTuple):
    """One key that went."""

    file: str
    path: tuple[str, ...]
    """Keys from the top of the file; `*` is any key, or every entry of a list. The last may be an entry of a list."""
    instead: str
    """What to do, for whoever still has it."""

    @property
    def variable(self) -> str:
        """The environment variable that meant it, for a key of fleet.yaml."""
        return "FLEET_" + "_".join(self.path).upper()


_NO_COUNCIL = "remove it from the list: only `code` and `architecture` get a council without being asked for"
_NO_ACTIONS = (
    "remove it: it decided nothing. `tools` and `phases` of a role say what it may call, `role` and `by` in fsm.yaml"
    " and `roles` in planning.yaml who opens a gate and makes a move"
)
_ONE_BY_ONE = "remove it: the tasks of a story run one after the other"

RETIRED = (
    Retired("roles.yaml", ("actions",), _NO_ACTIONS),
    Retired("roles.yaml", ("roles", "*", "actions"), _NO_ACTIONS),
    Retired("roles.yaml", ("roles", "*", "grants", "actions"), _NO_ACTIONS),
    Retired("fleet.yaml", ("context_replicas",), "remove it: there is one context actor, and never was another"),
    Retired("serve.yaml", ("command_wait_s",), "remove it: a command waits 5 s for its owner before 202 is answered"),
    Retired(
        "serve.yaml",
        ("request_timeout_s",),
        "remove it: no request was ever ended by it; set a limit in the proxy in front of the fleet",
    ),
    Retired("council.yaml", ("defaults", "max_tests"), "remove it: it never bounded the tests of a task"),
    Retired(
        "council.yaml",
        ("pools", "*", "modes"),
        "remove it: a mock seat answers in the `mode` of its engine in models.yaml",
    ),
    Retired(
        "council.yaml",
        ("reliability", "version"),
        "remove it: the weight of each seat is on record with its council",
    ),
    Retired("council.yaml", ("used_for", "*", "design"), _NO_COUNCIL),
    Retired("council.yaml", ("used_for", "*", "story_gate"), _NO_COUNCIL),
    Retired("planning.yaml", ("execution", "max_parallel_tasks"), _ONE_BY_ONE),
    Retired("planning.yaml", ("execution", "parallel"), _ONE_BY_ONE),
    Retired("planning.yaml", ("derivation", "wait_s"), "remove it: the next attempt begins at once"),
    Retired(
        "planning.yaml",
        ("derivation", "timeout_s"),
        "remove it: `timeout_s` of an entry in a chain of models.yaml binds a call",
    ),
    Retired(
        "planning.yaml",
        ("ceremonies", "*", "timeouts", "step_s"),
        "remove it: `timeout_s` of each step is what binds it",
    ),
    Retired(
        "planning.yaml",
        ("ceremonies", "*", "timeouts", "ceremony_max_s"),
        "remove it: a review stays open until a person completes or cancels it",
    ),
    Retired(
        "planning.yaml",
        ("ceremonies", "*", "steps", "*", "handler"),
        "remove it: the step asks the councils of the ceremony, and there is no other handler",
    ),
    Retired(
        "planning.yaml",
        ("ceremonies", "*", "transitions", "*", "guard"),
        "remove it: `roles` says who makes a move, `system` the fleet itself",
    ),
)
"""Every key that went, each with a row in docs/upgrading.md."""

_BY_FILE: Mapping[str, tuple[Retired, ...]] = {
    name: tuple(key for key in RETIRED if key.file == name) for name in {key.file for key in RETIRED}
}


def drop_retired(document: ConfigDocument, name: str) -> ConfigDocument:
    """The document of this file, the caller's own, without the keys that went."""
    for key in _BY_FILE.get(name, ()):
        _drop(document, key.path)
    return document


def _drop(value: object, path: tuple[str, ...]) -> None:
    head, rest = path[0], path[1:]
    if isinstance(value, list):
        entries = cast(list[object], value)
        if not rest and head in entries:
            entries[:] = [inner for inner in entries if inner != head]
        for inner in entries if head == "*" else ():
            _drop(inner, rest)
    elif isinstance(value, dict):
        known = cast(dict[str, object], value)
        if not rest:
            known.pop(head, None)
            return
        for inner in list(known.values()) if head == "*" else [known.get(head)]:
            _drop(inner, rest)


def retired_warnings(raw: bytes, name: str, *, file: str) -> list[str]:
    """A sentence with file and line for each key in the text of this file that went."""
    keys = _BY_FILE.get(name, ())
    if not keys:
        return []
    node = node_of(raw)
    return [
        f"{file}, line {line}: {'.'.join(key.path)} has no effect any more; {key.instead}"
        for key in keys
        for line in _lines(node, key.path)
    ]


def _lines(node: yaml.Node | None, path: tuple[str, ...]) -> Iterator[int]:
    head, rest = path[0], path[1:]
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            if head == "*":
                yield from _lines(inner, rest)
            elif not rest and inner.value == head:
                yield inner.start_mark.line + 1
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if head not in ("*", key.value):
                continue
            if rest:
                yield from _lines(value, rest)
            else:
                yield key.start_mark.line + 1


def retired_variables(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable of the environment whose key went."""
    return [
        f"environment: {key.variable} has no effect any more; {key.instead}"
        for key in _BY_FILE["fleet.yaml"]
        if environ.get(key.variable)
    ]
