"""The OpenAI-compatible API of a worker."""
