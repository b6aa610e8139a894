"""The tools of an act loop as a model is offered them, from their declarations in config/policy.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fleet.models.chat import ToolOffer
from fleet.models.replies.tool_calls import offer_of
from fleet.policy.capabilities import ArgSpec, Capability

_NAMES = 20
"""Of what an operation may reach, so many are named."""
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
    "http.get": "What the address answers.",
    "http.head": "Status and headers of the address.",
    "db.postgresql_query": "The rows of a query that reads only.",
    "db.redis_read": "The answer of a Redis command that reads only.",
    "db.neo4j_read": "The rows of a Cypher query that reads only.",
    "mcp.list_tools": "The tools of an MCP server: which may be called, what they do, and their arguments.",
    "mcp.read": "What a tool of an MCP server answers, one that mcp__list_tools marks with `reads`.",
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


def offers_outside(capabilities: Iterable[tuple[Capability, Sequence[str]]]) -> tuple[ToolOffer, ...]:
    """As `offers_of`, for operations that reach something outside; each offer says what."""
    return tuple(
        _offer(capability, f" Listed: {', '.join(names[:_NAMES])}{' ...' if len(names) > _NAMES else ''}.")
        for capability, names in capabilities
    )


def _offer(capability: Capability, also: str = "") -> ToolOffer:
    needed_first = sorted(capability.args.items(), key=lambda item: not item[1].required)
    parameters = {
        "type": "object",
        "properties": {name: _schema(spec) for name, spec in needed_first},
        "required": [name for name, spec in needed_first if spec.required],
        "additionalProperties": False,
    }
    description = _SAID.get(capability.name, f"Operation {capability.op} of tool {capability.tool}.") + also
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
