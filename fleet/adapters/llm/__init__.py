"""Models: any OpenAI-compatible server, recorded replies, mocks; and how they are built from configuration."""

from fleet.adapters.llm.factory import ChatModels, build_chat_model
from fleet.adapters.llm.mock import MockChatModel
from fleet.adapters.llm.openai import OpenAIChatModel
from fleet.adapters.llm.recorded import RecordedChatModel, RecordingChatModel

__all__ = [
    "ChatModels",
    "MockChatModel",
    "OpenAIChatModel",
    "RecordedChatModel",
    "RecordingChatModel",
    "build_chat_model",
]
