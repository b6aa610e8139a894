"""The tools of an act loop as a model is offered them, from their declarations in config/policy.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.models.chat import ToolOffer
from fleet.models.replies.tool_calls import offer_of
from fleet.policy.capabilities import ArgSpec, Capability

_SAID: Mapping[str, str] = {
    "files.list": 'Names of the files in a folder; path "." is the whole repository.',
    "files.read": "The text of one file.",
    "files.info": "Kind and size of a file or folder.",
    "files.search": "Paths that hold a pattern.",
    "search.text": "Lines of files that hold a text, with path and line number.",
    "search.symbols": "Where a function or class of this name is defined.",
    "search.references": "Where a name is used.",
    "search.outline": "What one file defines.",
    "search.structure": "Places in code that fit a pattern of its syntax.",
    "git.log": "The last commits, with their messages.",
    "git.diff": "What differs from a commit.",
    "git.show": "One commit.",
    "tests.pytest": "Runs the tests of the repository in a copy that is thrown away, and says which fail.",
}
_TYPES: Mapping[str, dict[str, Any]] = {
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "argv": {"type": "array", "items": {"type": "string"}},
    "lines": {"type": "array", "items": {"type": "string"}},
    "paths": {"type": "array", "items": {"type": "string"}},
}


def may_explore(capability: Capability) -> bool:
    """Whether a call leaves nothing behind and needs nobody's yes: it reads, or runs on a copy that is thrown away."""
    declared = capability.declared
    return (
        declared.effect == "PURE"
        and declared.side_effects == "none"
        and declared.approval == "never"
        and declared.network == "none"
        and declared.scope in ("workspace", "repo")
    )


def offers_of(capabilities: Iterable[Capability]) -> tuple[ToolOffer, ...]:
    """The offer of each operation, in their order: name, a sentence, and its arguments as JSON Schema."""
    return tuple(_offer(capability) for capability in capabilities)


def _offer(capability: Capability) -> ToolOffer:
    needed_first = sorted(capability.args.items(), key=lambda item: not item[1].required)
    parameters = {
        "type": "object",
        "properties": {name: _schema(spec) for name, spec in needed_first},
        "required": [name for name, spec in needed_first if spec.required],
        "additionalProperties": False,
    }
    description = _SAID.get(capability.name, f"Operation {capability.op} of tool {capability.tool}.")
    return offer_of(capability.tool, capability.op, description=description, parameters=parameters)


def _schema(spec: ArgSpec) -> dict[str, Any]:
    """The form of one argument; the policy checks the rest of its declaration."""
    if spec.type == "choice":
        return {"type": "string", "enum": list(spec.choices)}
    schema = dict(_TYPES.get(spec.type, {"type": "string"}))
    if spec.type == "integer":
        bounds = {"minimum": spec.minimum, "maximum": spec.maximum}
        schema |= {name: bound for name, bound in bounds.items() if bound is not None}
    return schema
