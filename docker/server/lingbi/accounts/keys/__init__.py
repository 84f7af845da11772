"""Keys and groups: how they are kept, changed, and taken over from a host's key file."""
