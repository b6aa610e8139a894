"""Adapters of engines: OpenAI-compatible servers, Anthropic, vLLM, llama.cpp, recorded and mock replies."""
