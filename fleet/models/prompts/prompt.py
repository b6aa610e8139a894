"""Prompts: versioned text files filled with the values of one request. Same values, same bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ConfigError, InvalidInput
from fleet.kernel.ids import Digest
from fleet.models.chat import ChatMessage, ChatRequest, Sampling, ToolOffer, ToolUse
from fleet.models.replies.json_schema import describe_schema
from fleet.models.replies.replies import ReplyKind

KINDS = get_args(ReplyKind)
_HEADER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_PLACE = re.compile(r"\{\{(\w+)\}\}")
_PLACES = frozenset({"shared", "own", "persona", "form"})
_WORK_LINE = "Work: "
_MAX_QUOTED = 2000
# Tags of our prompts, whoever writes them, and what chat templates of models take for the end of a turn or the begin of
# another: engines read it as that wherever it stands.
_OURS = r"<(?=\s*/?\s*(?:tool_result|context|your_input|persona|person_says)(?![\w-]))"
_TEMPLATES = (
    r"<(?=[|\uff5c][\w./\u2581-]{1,64}[|\uff5c]>|/s>|/?(?:start|end)_of_turn>|[be]os>|<SYS>>|</SYS>>"
    r"|(?:pad|unk)>)|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\])"
)
_BREAKING = re.compile(f"(?i:{_OURS})|{_TEMPLATES}")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """The prompt of one kind of work: rules for the system message, and the user message with places to fill."""

    kind: str
    version: int
    max_tokens: int | None
    """Bound that the file sets on a reply, in tokens; None leaves it to the engine and the budget."""
    system: str
    user: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Persona:
    """How one role speaks and thinks; seats of the role differ by variant (CN-14)."""

    version: int
    text: str
    variants: tuple[str, ...]
    digest: Digest

    def variant(self, number: int) -> str:
        """The role's text with the variant of a seat; the variants repeat."""
        if not self.variants:
            return self.text
        return f"{self.text} {self.variants[number % len(self.variants)]}"


@dataclass(frozen=True, slots=True)
class PromptSet:
    """All prompts of a configuration, by kind of work and by path below config/."""

    templates: Mapping[str, PromptTemplate]
    personas: Mapping[str, Persona]

    def template(self, kind: str, language: str | None = None) -> PromptTemplate:
        """The template of a kind, or that of the kind in a language; ConfigError when config/prompts has none."""
        name = f"{kind}.{language}" if language else kind
        try:
            return self.templates[name]
        except KeyError:
            raise ConfigError(f"config/prompts/{name}.md is missing", file=f"prompts/{name}.md") from None

    def persona(self, path: str) -> Persona:
        """The persona in this file; ConfigError when there is none."""
        try:
            return self.personas[path]
        except KeyError:
            raise ConfigError(
                f"config/{path} is missing: config/roles.yaml names it as a role's prompt", file=path
            ) from None


def parse_prompts(files: Mapping[str, str]) -> PromptSet:
    """The prompts in these files (path below config/ -> text): `prompts/<kind>.md` are templates, all others personas.

    `prompts/<kind>.<language>.md` is the template of the kind where the work is in that language.

    Raises:
        ConfigError: a file has no header, an unknown place, or a missing part; file and reason are named.
    """
    templates: dict[str, PromptTemplate] = {}
    personas: dict[str, Persona] = {}
    for path, text in sorted(files.items()):
        name = path.removeprefix("prompts/").removesuffix(".md")
        kind = name.partition(".")[0]
        if kind in KINDS:
            templates[name] = _parse_template(path, kind, text)
        else:
            personas[path] = _parse_persona(path, text)
    return PromptSet(templates, personas)


def _parse_template(path: str, kind: str, text: str) -> PromptTemplate:
    header, body = _split_header(path, text)
    parts = re.split(r"^# (system|user)\n", body, flags=re.MULTILINE)
    if [parts[0].strip(), *parts[1::2]] != ["", "system", "user"]:
        raise ConfigError(f"config/{path} needs the parts `# system` and `# user`, in this order", file=path)
    if unknown := sorted(set(_PLACE.findall(body)) - _PLACES):
        raise ConfigError(f"config/{path} has unknown places: {', '.join(unknown)}", file=path, allowed=sorted(_PLACES))
    if _PLACE.search(parts[2]):
        raise ConfigError(f"config/{path}: the system part is the same for all requests and has no places", file=path)
    return PromptTemplate(
        kind=kind,
        version=_number(path, header, "version"),
        max_tokens=_number(path, header, "max_tokens") if "max_tokens" in header else None,
        system=parts[2].strip(),
        user=parts[4].strip(),
        digest=digest_of(text.encode()),
    )


def _parse_persona(path: str, text: str) -> Persona:
    header, body = _split_header(path, text)
    base, *variants = (part.strip() for part in re.split(r"^## variant\n", body, flags=re.MULTILINE))
    if not base:
        raise ConfigError(f"config/{path} has no text", file=path)
    return Persona(_number(path, header, "version"), base, tuple(variants), digest_of(text.encode()))


def _split_header(path: str, text: str) -> tuple[dict[str, str], str]:
    match = _HEADER.match(text)
    if match is None:
        raise ConfigError(f"config/{path} must begin with a header between `---` lines", file=path)
    pairs = (line.partition(":") for line in match.group(1).splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}, text[match.end() :]


def _number(path: str, header: Mapping[str, str], name: str) -> int:
    value = header.get(name, "")
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"config/{path}: the header needs `{name}: <whole number>`", file=path, reason=name)
    return int(value)


def build_request(
    template: PromptTemplate,
    persona: str,
    *,
    shared: str,
    own: str = "",
    sampling: Sampling,
    json_schema: Mapping[str, Any] | None = None,
    constrain: bool = True,
) -> ChatRequest:
    """The request: rules first, then what all members of a council share, then role and seat.

    What members share is a common prefix of their messages, so one prefix cache serves a whole round. Data stands
    between tags that the data itself cannot close. `constrain` false keeps the schema out of the request; the form is
    described in the prompt in any case.
    """
    values = {
        "shared": _fenced("context", shared),
        "own": _fenced("your_input", own) if own.strip() else "",
        "persona": persona,
        "form": describe_schema(json_schema) if json_schema is not None else "",
    }
    # Paragraphs whose only place is empty are left out; data is never touched, its blank lines are code.
    paragraphs = [part for part in template.user.split("\n\n") if _filled(part, values)]
    user = _PLACE.sub(lambda place: values[place.group(1)], "\n\n".join(paragraphs))
    return ChatRequest(
        messages=(
            ChatMessage(role="system", content=f"{_WORK_LINE}{template.kind}\n{template.system}"),
            ChatMessage(role="user", content=user),
        ),
        sampling=sampling,
        json_schema=dict(json_schema) if json_schema is not None and constrain else None,
    )


def seat_persona(role: str, own: str) -> str:
    """The persona of a role, and what an admin says of this one seat of it, between tags: data, which closes no tag."""
    return f"{role}\nHow you work in particular:\n{_fenced('persona', own)}" if own.strip() else role


def _filled(paragraph: str, values: Mapping[str, str]) -> bool:
    place = _PLACE.fullmatch(paragraph.strip())
    return place is None or bool(values[place.group(1)])


def as_data(text: str) -> str:
    """The text as material: what would be a tag of ours or a token of a chat template begins with an entity instead."""
    return _BREAKING.sub(lambda sign: "&lt;" if sign[0] == "<" else "&#91;", text)


def _fenced(tag: str, data: str) -> str:
    return f"<{tag}>\n{as_data(data.strip(chr(10)))}\n</{tag}>"


def with_turns(request: ChatRequest, turns: Sequence[ChatMessage], tools: Sequence[ToolOffer]) -> ChatRequest:
    """The request with what was said and done after it, and the tools that may be asked for."""
    messages, rest = list(request.messages), list(turns)
    if rest and rest[0].role == messages[-1].role:
        # Many chat templates refuse two messages of the user in a row.
        joined = f"{messages[-1].content}\n\n{rest.pop(0).content}"
        messages[-1] = messages[-1].model_copy(update={"content": joined})
    return request.model_copy(update={"messages": (*messages, *rest), "tools": tuple(tools)})


def with_problems(
    request: ChatRequest, reply: str, problems: Sequence[str], uses: Sequence[ToolUse] = ()
) -> ChatRequest:
    """The request again, with the bad reply and what is wrong with it (MB-6).

    Args:
        uses: tools that the reply asked for; each is answered with its problem, as models and servers expect.
    """
    if uses:
        answers = [
            ChatMessage(role="tool", content=problem, tool_use_id=use.id)
            for use, problem in zip(uses, [*problems, *["Not executed."] * len(uses)], strict=False)
        ]
        asked = ChatMessage(role="assistant", content=reply[:_MAX_QUOTED], tool_uses=tuple(uses))
        return request.model_copy(update={"messages": (*request.messages, asked, *answers)})
    listed = "\n".join(f"- {problem}" for problem in problems)
    ask = f"Your reply cannot be used:\n{listed}\nAnswer again, in the asked form, and add nothing else."
    quoted = reply if len(reply) <= _MAX_QUOTED else f"{reply[:_MAX_QUOTED]}\n[...]"
    return request.model_copy(
        update={
            "messages": (
                *request.messages,
                ChatMessage(role="assistant", content=quoted or "(empty)"),
                ChatMessage(role="user", content=ask),
            )
        }
    )


def kind_of(request: ChatRequest) -> str:
    """The kind of work that a request was built for; InvalidInput for a request that no template made."""
    first = request.messages[0].content.split("\n", 1)[0]
    if not first.startswith(_WORK_LINE):
        raise InvalidInput(
            "this request was not built from a prompt template: its first line names no work", line=first[:80]
        )
    return first.removeprefix(_WORK_LINE)
