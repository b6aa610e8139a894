"""Where the models of a fleet answer."""

LLM_PREFIX = "/v1"
