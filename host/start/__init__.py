"""scripts/up with Docker, or without: what is decided, and what is done."""
