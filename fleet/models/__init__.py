"""Models: requests, replies, routing and budgets (pure)."""

from fleet.models.chat import ChatChunk, ChatMessage, ChatReply, ChatRequest, FinishReason, Sampling, TokenUsage

__all__ = ["ChatChunk", "ChatMessage", "ChatReply", "ChatRequest", "FinishReason", "Sampling", "TokenUsage"]
