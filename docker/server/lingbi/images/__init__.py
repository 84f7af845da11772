"""Images of requests and commands: where they come from, and how they are decoded."""
