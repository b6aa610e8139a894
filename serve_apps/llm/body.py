"""Wire types of `/v1`: OpenAI's chat completions, as strict as models here need them (AP-122)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

_INT64 = 2**63


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Ignored = Annotated[Any, Field(description="Accepted and not used.")]


class TextPart(_Body):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(_Body):
    """What a model said when it refused."""

    type: Literal["refusal"]
    refusal: str


_PART_TYPES = ("text", "refusal")


def _text_parts(value: object) -> object:
    if isinstance(value, list):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            kind: object = part.get("type") if isinstance(part, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            if isinstance(kind, str) and kind not in _PART_TYPES:
                raise PydanticCustomError(
                    "unsupported_content",
                    "content of type {kind} is not taken: models here read text; send parts of type text",
                    {"kind": repr(kind[:40])},
                )
    return value


Parts = Annotated[list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]], Field(min_length=1)]


def _is_text(value: object) -> str:
    return "parts" if isinstance(value, list) else "text"


Content = Annotated[
    Annotated[Annotated[str, Tag("text")] | Annotated[Parts, Tag("parts")], Discriminator(_is_text)],
    BeforeValidator(_text_parts),
]


class FunctionCall(_Body):
    """The function that a model asked for."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: str


class ToolCallBody(_Body):
    """One call that a model asked for."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: Literal["function"] = "function"
    function: FunctionCall
    index: Ignored = None


class InstructionMessage(_Body):
    """What the model shall do, above what users say."""

    role: Literal["system", "developer"]
    content: Content
    name: Ignored = None


class UserMessage(_Body):
    """What a user says."""

    role: Literal["user"]
    content: Content
    name: Ignored = None


class AssistantMessage(_Body):
    """What the model said before; without content it asked for tools."""

    role: Literal["assistant"]
    content: Content | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCallBody], Field(max_length=128)] | None = None
    name: Ignored = None
    annotations: Ignored = None
    audio: None = None
    function_call: None = None
    reasoning_content: Ignored = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.refusal is None and not self.tool_calls:
            raise PydanticCustomError("missing", "content is required where tool_calls are not given")
        return self


class ToolMessage(_Body):
    """What a tool answered."""

    role: Literal["tool"]
    content: Content
    tool_call_id: Annotated[str, Field(min_length=1, max_length=128)]
    name: Ignored = None


Message = Annotated[
    InstructionMessage | UserMessage | AssistantMessage | ToolMessage,
    Field(discriminator="role"),
]


class FunctionBody(_Body):
    """A function that the model may ask for."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=1024)] | None = None
    parameters: dict[str, Any] | None = None
    strict: Ignored = None


class ToolBody(_Body):
    """A tool that the model may ask for."""

    type: Literal["function"]
    function: FunctionBody


class JsonSchemaBody(_Body):
    """The form of a structured reply."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class TextFormat(_Body):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(_Body):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(_Body):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchemaBody


class StreamOptions(_Body):
    """What a stream tells."""

    include_usage: bool | None = None
    """A last chunk without choices carries the usage."""
    include_obfuscation: Ignored = None


def _choice(value: object) -> object:
    if value == "required" or isinstance(value, dict):
        raise PydanticCustomError("unsupported_value", "a model here cannot be made to call a tool: use auto or none")
    return value


def _one(value: object) -> object:
    if isinstance(value, int) and value != 1:
        raise PydanticCustomError("unsupported_value", "one reply is given to a request: leave n out and ask again")
    return value


def _neutral(value: object) -> object:
    """What asks for nothing: null, false, zero, an empty list or mapping."""
    if isinstance(value, bool | int | float | list | dict) and not value:
        return None
    if value is not None:
        raise PydanticCustomError("unsupported_parameter", "not supported by the models here: leave it out")
    return value


def _plain_modalities(value: object) -> object:
    return None if value == ["text"] else _neutral(value)


Unsupported = Annotated[None, BeforeValidator(_neutral), Field(description="Not supported: refused unless neutral.")]
Stop = Annotated[str, Field(min_length=1, max_length=256)]


def _stop_form(value: object) -> str:
    return "many" if isinstance(value, list) else "one"


class ChatCompletionBody(_Body):
    """A request for one reply of a model."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    """An id that `GET /v1/models` lists."""
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=_INT64)] | None = None
    """Older name of `max_completion_tokens`."""
    max_completion_tokens: Annotated[int, Field(ge=1, lt=_INT64)] | None = None
    """Longest reply in tokens; the model's own bound holds too. Without it, what the model's context leaves."""
    stop: (
        Annotated[
            Annotated[Stop, Tag("one")] | Annotated[Annotated[list[Stop], Field(max_length=4)], Tag("many")],
            Discriminator(_stop_form),
        ]
        | None
    ) = None
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64)] | None = None
    response_format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None = (
        None
    )
    tools: Annotated[list[ToolBody], Field(max_length=128)] | None = None
    tool_choice: Annotated[Literal["auto", "none"], BeforeValidator(_choice)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[Literal[1], BeforeValidator(_one)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=256)] | None = None
    """Requests with the same key go to the same replica, whose prefix cache serves them all."""

    frequency_penalty: Unsupported = None
    presence_penalty: Unsupported = None
    logit_bias: Unsupported = None
    logprobs: Unsupported = None
    top_logprobs: Unsupported = None
    audio: Unsupported = None
    functions: Unsupported = None
    function_call: Unsupported = None
    web_search_options: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    modalities: Annotated[None, BeforeValidator(_plain_modalities)] = None

    user: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_retention: Ignored = None
    prediction: Ignored = None
    parallel_tool_calls: Ignored = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("invalid_value", "stream_options is for requests with stream: true")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and len(set(both)) > 1:
            raise PydanticCustomError("invalid_value", "max_tokens and max_completion_tokens differ: send one of them")
        return self

    @property
    def reply_bound(self) -> int | None:
        """The longest reply that is asked for, in tokens; None leaves it to the model."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)
