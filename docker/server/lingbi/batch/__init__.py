"""Batches: files of requests that are answered in the background, as in OpenAI's Batch API."""
