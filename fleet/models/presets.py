"""Providers of hosted and local models as data: where they are, what they take, which key they want (MB-1).

A preset fills in what an engine of config/models.yaml leaves out. It holds no price: prices are per model and change,
so they stand in the user's entry. Facts are from the pages that `documented_at` names, and from issues where a page is
silent; what a server refuses all the same is learned from its answer by the adapter, once per process.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from fleet.kernel.types import Frozen

Capability = Literal["json_schema", "tools", "seed"]
Preset = Literal["openai", "anthropic", "google", "groq", "openrouter", "ollama"]
SchemaForm = Literal["json_schema", "json_object_schema", "json_object", "none"]
"""How a schema is sent: OpenAI's named form, llama.cpp's, a JSON object without schema, not at all."""


class Dialect(Frozen):
    """What a server with the OpenAI wire format takes beyond the common core."""

    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    schema_form: SchemaForm = "json_schema"
    """The strictest form that it takes."""
    left_out: frozenset[Literal["temperature", "top_p", "seed", "stop", "stream_options"]] = frozenset()
    """Fields that are never sent."""
    schema_with_tools: bool = True
    """Whether one request may both constrain the reply and offer tools."""
    tool_use_extra: dict[str, str | dict[str, dict[str, str]]] = Field(default_factory=dict)
    """Sent with every tool use that goes back to the server."""


class ProviderPreset(Frozen):
    """One provider. `wire` names the adapter that speaks to it."""

    wire: Literal["openai", "anthropic"]
    base_url: str
    key_variable: str | None
    """Environment variable in which the provider's own documentation puts the key; None where no key is wanted."""
    secret_name: str | None
    """Name that we propose for the key in a secret store."""
    external: bool
    max_context: Annotated[int, Field(ge=256)]
    """Used where the entry names none: what the smallest model that the provider recommends for code can hold."""
    capabilities: frozenset[Capability]
    dialect: Dialect = Dialect()
    headers: dict[str, str] = Field(default_factory=dict)
    documented_at: tuple[str, ...]
    """The provider's pages, by title, that these facts are from."""


PRESETS: Mapping[Preset, ProviderPreset] = MappingProxyType(
    {
        "openai": ProviderPreset(
            wire="openai",
            base_url="https://api.openai.com/v1",
            key_variable="OPENAI_API_KEY",
            secret_name="openai-api-key",
            external=True,
            max_context=128_000,
            capabilities=frozenset({"json_schema", "tools", "seed"}),
            # `max_tokens` is deprecated, and models that reason refuse it.
            dialect=Dialect(max_tokens_name="max_completion_tokens"),
            documented_at=("OpenAI API reference: Create chat completion", "OpenAI: Error codes"),
        ),
        "anthropic": ProviderPreset(
            wire="anthropic",
            base_url="https://api.anthropic.com/v1",
            key_variable="ANTHROPIC_API_KEY",
            secret_name="anthropic-api-key",
            external=True,
            max_context=200_000,
            # No seed; present models refuse temperature and top_p too.
            capabilities=frozenset({"json_schema", "tools"}),
            documented_at=(
                "Claude API: Messages",
                "Claude API: Streaming Messages",
                "Claude API: Structured outputs",
                "Claude API: Handling stop reasons",
                "Claude API errors",
            ),
        ),
        "google": ProviderPreset(
            wire="openai",
            base_url="https://generativelanguage.googleapis.com/v1beta/openai/",
            key_variable="GEMINI_API_KEY",
            secret_name="gemini-api-key",
            external=True,
            max_context=1_048_576,
            capabilities=frozenset({"json_schema", "tools"}),
            dialect=Dialect(
                # "Unknown name "seed": Cannot find field", reported for this endpoint.
                left_out=frozenset({"seed"}),
                # "Function calling with a response mime type: 'application/json' is unsupported".
                schema_with_tools=False,
                # Gemini 3 refuses a tool use without a signature; this value stands for one that was not kept.
                tool_use_extra={
                    "extra_content": {"google": {"thought_signature": "skip_thought_signature_validator"}},
                },
            ),
            documented_at=(
                "Gemini API: OpenAI compatibility",
                "Gemini API: Thought signatures",
                "Gemini API: API errors",
            ),
        ),
        "groq": ProviderPreset(
            wire="openai",
            base_url="https://api.groq.com/openai/v1",
            key_variable="GROQ_API_KEY",
            secret_name="groq-api-key",
            external=True,
            max_context=131_072,
            capabilities=frozenset({"json_schema", "tools", "seed"}),
            dialect=Dialect(max_tokens_name="max_completion_tokens"),
            documented_at=("GroqDocs: OpenAI Compatibility", "GroqDocs: API Error Codes and Responses"),
        ),
        "openrouter": ProviderPreset(
            wire="openai",
            base_url="https://openrouter.ai/api/v1",
            key_variable="OPENROUTER_API_KEY",
            secret_name="openrouter-api-key",
            external=True,
            # It stands in front of models of every size.
            max_context=32_768,
            capabilities=frozenset({"json_schema", "tools", "seed"}),
            headers={"X-Title": "SWE Fleet"},
            documented_at=("OpenRouter: API Reference", "OpenRouter: Errors and Debugging"),
        ),
        "ollama": ProviderPreset(
            wire="openai",
            base_url="http://127.0.0.1:11434/v1",
            key_variable=None,
            secret_name=None,
            external=False,
            # Its default below 24 GiB of GPU memory; OLLAMA_CONTEXT_LENGTH raises it.
            max_context=4096,
            capabilities=frozenset({"json_schema", "tools", "seed"}),
            documented_at=("Ollama: OpenAI compatibility", "Ollama: Context length"),
        ),
    }
)
"""Every preset by name."""
