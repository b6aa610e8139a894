"""Tools for models that have none of their own: the offer as text in the prompt, and the calls found in the reply.

JSON form, one call (the reply may hold several, or a list of them):

    {"tool": "files", "op": "read", "args": {"path": "src/a.py"}}

Labelled blocks, for models that break JSON as soon as it holds code:

    === CALL files write
    === ARG path
    src/a.py
    === ARG content
    print("as it is, without quotes or escapes")
    === END

One object, for engines that hold a reply to a schema: either a call in the JSON form, or `{"answer": "..."}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fleet.models.chat import ChatMessage, ChatRequest, ToolOffer, ToolUse
from fleet.models.replies.json_schema import describe_schema
from fleet.models.replies.tool_calls import TextToolForm, offered_name

_JSON_HOW = (
    "You may use these tools. To call one, write one JSON object and nothing after it:\n"
    '{"tool": "TOOL", "op": "OPERATION", "args": {"NAME": VALUE}}\n'
    "You get the result as the next message. When no tool is needed any more, give your answer without such an object."
)
_BLOCKS_HOW = (
    "You may use these tools. To call one, write a block like this and nothing after it:\n"
    "=== CALL TOOL OPERATION\n=== ARG NAME\nthe value as it is, over as many lines as it needs, no quotes, no escapes\n"
    "=== END\n"
    "One ARG part per argument. You get the result as the next message. When no tool is needed any more, give your "
    "answer without such a block."
)
_OBJECT_HOW = (
    "You may use these tools. Reply with one JSON object. This one calls a tool:\n"
    '{"tool": "TOOL", "op": "OPERATION", "args": {"NAME": VALUE}}\n'
    "You get the result as the next message. When no tool is needed any more, reply with your answer instead:\n"
    '{"answer": "TEXT"}'
)
_HOW: Mapping[TextToolForm, str] = {"json": _JSON_HOW, "blocks": _BLOCKS_HOW, "object": _OBJECT_HOW}
_TAG = re.compile(r"</?(?:tool_call|function_call|tools?)>", re.IGNORECASE)
_FENCE_OPEN = re.compile(r"```[A-Za-z_]*[ \t]*\n?\s*$")
_FENCE_CLOSE = re.compile(r"\s*```")
_CALL = re.compile(r"^=== CALL[ \t]+([A-Za-z0-9_.:-]+)(?:[ \t]+([A-Za-z0-9_-]+))?[ \t]*$")
_ARG = re.compile(r"^=== ARG[ \t]+([A-Za-z0-9_.-]+)[ \t]*:?[ \t]*$")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_END = re.compile(r"^=== END\b.*$")
_NAMED = re.compile(r'"(?:tool|name|function)"\s*:\s*"([^"\\]{1,80})"(?:\s*,\s*"op"\s*:\s*"([^"\\]{1,80})")?')
_DECODER = json.JSONDecoder()
_MAX_BRACES = 2000


class TextUses(NamedTuple):
    """What a reply in text form holds: the words around the calls, and the calls in order."""

    text: str
    uses: tuple[ToolUse, ...]


def with_tools_as_text(request: ChatRequest, form: TextToolForm) -> ChatRequest:
    """The same conversation for a model without native tools.

    The offer stands in the system message; earlier calls and their results are text.
    """
    example = [_block_example(request.tools[0])] if form == "blocks" and request.tools else []
    offer = "\n\n".join([_HOW[form], *example, _listed(request.tools, form)]) if request.tools else ""
    changed: dict[str, Any] = {"tools": (), "messages": tuple(_messages(request.messages, offer, form))}
    if form == "object" and request.tools:
        changed["json_schema"] = tool_reply_schema(request.tools)
    return request.model_copy(update=changed)


def tool_reply_schema(offers: Sequence[ToolOffer]) -> dict[str, Any]:
    """What a reply in the form `object` may be: a call of one of the tools, or an answer."""
    return {"anyOf": [*(_call_schema(offer) for offer in offers), _closed({"answer": {"type": "string"}})]}


def _call_schema(offer: ToolOffer) -> dict[str, Any]:
    tool, _, op = offer.name.partition("__")
    named = {"tool": {"const": tool}, **({"op": {"const": op}} if op else {})}
    return _closed({**named, "args": dict(offer.parameters)})


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def tool_uses_in(text: str, form: TextToolForm, offers: Sequence[ToolOffer]) -> TextUses:
    """The calls that a model wrote in its reply, if any. A broken call is a use too; its arguments are no JSON then."""
    if form == "object" and (answer := _answer_in(text)) is not None:
        return TextUses(answer, ())
    spans = _block_uses(text, offers) if form == "blocks" else _json_uses(text, offers)
    pieces, uses, at = list[str](), list[ToolUse](), 0
    for index, (start, end, name, arguments) in enumerate(spans, 1):
        pieces.append(text[at:start])
        uses.append(ToolUse(id=f"text-{index}", name=name, arguments=arguments))
        at = end
    prose = "".join((*pieces, text[at:])).strip() if uses else text
    return TextUses(prose, tuple(uses))


def _answer_in(text: str) -> str | None:
    """The answer of a reply that is one object with nothing else in it; None when it is something else."""
    try:
        value = _mapping(json.loads(text))
    except (ValueError, RecursionError):
        return None
    answer = value.get("answer")
    return answer if len(value) == 1 and isinstance(answer, str) else None


class _Found(NamedTuple):
    start: int
    end: int
    name: str
    arguments: str


def _block_example(offer: ToolOffer) -> str:
    """A call with real names: small models copy the words that stand for them."""
    needed: Sequence[str] = offer.parameters.get("required") or list(offer.parameters.get("properties", {}))[:1]
    tool, _, op = offer.name.partition("__")
    parts = [f"=== ARG {name}\n(its value)" for name in needed]
    return "\n".join(["For example:", f"=== CALL {tool} {op}".rstrip(), *parts, "=== END"])


def _listed(offers: Sequence[ToolOffer], form: TextToolForm) -> str:
    """The tools, each named as it is written in a call."""
    named = (offer.name.replace("__", " ", 1) if form == "blocks" else _spoken(offer.name) for offer in offers)
    told = (f"{offer.description} {_described(offer.parameters)}" for offer in offers)
    return "\n".join(f"- {name}: {text}" for name, text in zip(named, told, strict=True))


def _spoken(name: str) -> str:
    tool, _, op = name.partition("__")
    return f'tool "{tool}" op "{op}"' if op else f'tool "{tool}"'


def _described(schema: Mapping[str, Any]) -> str:
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = set(schema.get("required", ()))
    parts = [
        f'"{name}"{"" if name in required else " (optional)"}: {describe_schema(item)}'
        for name, item in properties.items()
    ]
    return f"args {{{', '.join(parts)}}}"


def _messages(messages: Sequence[ChatMessage], offer: str, form: TextToolForm) -> Iterator[ChatMessage]:
    names: dict[str, str] = {}
    results: list[str] = []
    if offer and messages[0].role != "system":
        yield ChatMessage(role="system", content=offer)
    for index, message in enumerate(messages):
        if message.role == "tool":
            results.append(f"Result of {names.get(message.tool_use_id or '', 'the tool')}:\n{message.content}")
            continue
        if results:
            # Many chat templates want user and assistant to take turns, so results of one turn are one message.
            joined = "\n\n".join((*results, message.content)) if message.role == "user" else "\n\n".join(results)
            results = []
            yield ChatMessage(role="user", content=joined)
            if message.role == "user":
                continue
        names |= {use.id: _spoken(use.name) for use in message.tool_uses}
        written = [message.content, *(_written(use, form) for use in message.tool_uses)]
        content = "\n".join(part for part in written if part)
        if offer and index == 0 and message.role == "system":
            content = f"{content}\n\n{offer}"
        yield ChatMessage(role=message.role, content=content, reasoning=message.reasoning)
    if results:
        yield ChatMessage(role="user", content="\n\n".join(results))


def _written(use: ToolUse, form: TextToolForm) -> str:
    tool, _, op = use.name.partition("__")
    try:
        args = json.loads(use.arguments or "{}")
    except (ValueError, RecursionError):
        return use.arguments
    if form != "blocks" or not isinstance(args, dict):
        named = {"tool": tool, "op": op} if op else {"tool": tool}
        return json.dumps({**named, "args": args}, ensure_ascii=False)
    parts = [f"=== ARG {name}\n{_plain(value)}" for name, value in args.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return "\n".join((f"=== CALL {tool} {op}".rstrip(), *parts, "=== END"))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json_uses(text: str, offers: Sequence[ToolOffer]) -> Iterator[_Found]:
    at, tried = 0, 0
    names = frozenset(offer.name for offer in offers)
    while tried < _MAX_BRACES and (start := _next_start(text, at)) >= 0:
        tried += 1
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            broken = _broken(text, start, names)
            if broken is not None:
                yield broken
                return
            at = start + 1
            continue
        calls = [*_calls_in(value, names)]
        if not calls:
            # The JSON of an answer: a call inside it is not meant as one.
            at = end
            continue
        from_, to = _with_wrapping(text, start, end)
        for index, (name, arguments) in enumerate(calls):
            yield _Found(from_ if index == 0 else to, to, name, arguments)
        at = to


def _next_start(text: str, at: int) -> int:
    starts = [i for i in (text.find("{", at), text.find("[", at)) if i >= 0]
    return min(starts, default=-1)


def _calls_in(value: Any, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    wrapped = _mapping(value).get("tool_calls", value)
    items: list[Any] = wrapped if isinstance(wrapped, list) else [wrapped]  # pyright: ignore[reportUnknownVariableType]
    for entry in items:
        item = _mapping(entry)
        item = _mapping(item.get("function")) or item
        named = _name_in(item, names)
        if named is None:
            return
        yield named, _arguments_in(item)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _name_in(item: dict[str, Any], names: frozenset[str]) -> str | None:
    """The name of the tool; None when the object is no call but, say, the JSON of an answer."""
    tool, op = next((item[key] for key in ("tool", "name", "function") if key in item), None), item.get("op")
    if not isinstance(tool, str) or not tool:
        return None
    if isinstance(op, str) and op:
        return offered_name(tool, op)
    return tool if tool in names or any(key in item for key in ("args", "arguments", "parameters")) else None


def _arguments_in(item: dict[str, Any]) -> str:
    value: Any = next((item[key] for key in ("args", "arguments", "parameters") if key in item), None) or {}
    # Some templates teach a model to write its arguments as a text that holds JSON.
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _broken(text: str, start: int, names: frozenset[str]) -> _Found | None:
    """A call that was meant as one and is no JSON; None when nothing there names a tool."""
    named = _NAMED.match(text, start + 1) or _NAMED.match(text, start + 1 + _blanks(text, start + 1))
    if named is None:
        return None
    tool, op = named.group(1), named.group(2)
    name = offered_name(tool, op) if op else tool
    return _Found(start, len(text), name, text[start:]) if op or name in names else None


def _blanks(text: str, at: int) -> int:
    return len(text[at:]) - len(text[at:].lstrip())


def _with_wrapping(text: str, start: int, end: int) -> tuple[int, int]:
    """The span together with the fence or the tags that a model puts around a call."""
    before, after = text[:start], text[end:]
    if (opened := _FENCE_OPEN.search(before)) and (closed := _FENCE_CLOSE.match(after)):
        return opened.start(), end + closed.end()
    tags = [tag for tag in _TAG.finditer(before) if not before[tag.end() :].strip()]
    from_ = tags[-1].start() if tags else start
    closing = _TAG.match(after.lstrip())
    return from_, end + _blanks(text, end) + closing.end() if closing else end


def _block_uses(text: str, offers: Sequence[ToolOffer]) -> Iterator[_Found]:
    schemas = {offer.name: offer.parameters for offer in offers}
    start, name, args, label = -1, "", dict[str, str](), ""
    at = 0
    for line in _LINE.findall(text):
        bare = line.rstrip("\r\n")
        if opening := _CALL.match(bare):
            if start >= 0:
                yield _Found(start, at, name, _typed(args, schemas.get(name, {})))
            start, args, label = at, {}, ""
            name = offered_name(opening.group(1), opening.group(2)) if opening.group(2) else _joined(opening.group(1))
        elif start >= 0 and (named := _ARG.match(bare)):
            label = named.group(1)
            args[label] = ""
        elif start >= 0 and _END.match(bare):
            yield _Found(start, at + len(line), name, _typed(args, schemas.get(name, {})))
            start = -1
        elif start >= 0 and label:
            args[label] += line
        at += len(line)
    if start >= 0:
        # No END: the reply was cut off, or the model forgot it. A half-written file must not pass for a whole one.
        yield _Found(start, len(text), name, "the block has no === END line")


def _joined(name: str) -> str:
    """`files.write` and `files:write` are `files__write`."""
    return re.sub(r"[.:]", "__", name, count=1)


def _typed(args: Mapping[str, str], schema: Mapping[str, Any]) -> str:
    """The arguments as JSON: a text stays as it was written, anything else is what its JSON says."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    values: dict[str, Any] = {}
    for name, text in args.items():
        kind = properties.get(name, {}).get("type", "string")
        value = text.removesuffix("\n").removesuffix("\r")
        values[name] = value if kind == "string" else _json_or_text(value)
    return json.dumps(values, ensure_ascii=False)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
