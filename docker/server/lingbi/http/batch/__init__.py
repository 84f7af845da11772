"""OpenAI's Files and Batch API, and the runner that asks batches' lines."""
