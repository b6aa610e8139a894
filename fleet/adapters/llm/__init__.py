"""Models: any OpenAI-compatible server, recorded replies, mocks; and how they are built from configuration."""

from typing import TYPE_CHECKING, Any

from fleet.adapters.llm.factory import ChatModels, build_chat_model
from fleet.adapters.llm.mock import MockChatModel
from fleet.adapters.llm.recorded import RecordedChatModel, RecordingChatModel

__all__ = [
    "ChatModels",
    "MockChatModel",
    "OpenAIChatModel",
    "RecordedChatModel",
    "RecordingChatModel",
    "build_chat_model",
]

if TYPE_CHECKING:
    from fleet.adapters.llm.openai import OpenAIChatModel


def __getattr__(name: str) -> Any:
    # The SDK costs a second and 60 MB in every process; most role actors replay or wait and never need it.
    if name == "OpenAIChatModel":
        from fleet.adapters.llm.openai import OpenAIChatModel

        return OpenAIChatModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
