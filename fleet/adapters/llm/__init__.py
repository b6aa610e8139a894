"""Models: any OpenAI-compatible server, recorded replies, mocks; and how they are built from configuration."""

from typing import TYPE_CHECKING, Any

from fleet.adapters.llm.factory import ChatModels, KeyOf, build_chat_model
from fleet.adapters.llm.keys import ApiKey, GivenKey
from fleet.adapters.llm.mock import MockChatModel
from fleet.adapters.llm.recorded import RecordedChatModel, RecordingChatModel
from fleet.adapters.llm.text_tools import TextToolsChatModel

__all__ = [
    "AnthropicChatModel",
    "ApiKey",
    "ChatModels",
    "GivenKey",
    "KeyOf",
    "MockChatModel",
    "OpenAIChatModel",
    "RecordedChatModel",
    "RecordingChatModel",
    "TextToolsChatModel",
    "build_chat_model",
]

if TYPE_CHECKING:
    from fleet.adapters.llm.anthropic import AnthropicChatModel
    from fleet.adapters.llm.openai import OpenAIChatModel


def __getattr__(name: str) -> Any:
    # The SDK costs a second and 60 MB in every process; most role actors replay or wait and never need it.
    if name == "OpenAIChatModel":
        from fleet.adapters.llm.openai import OpenAIChatModel

        return OpenAIChatModel
    if name == "AnthropicChatModel":
        from fleet.adapters.llm.anthropic import AnthropicChatModel

        return AnthropicChatModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
