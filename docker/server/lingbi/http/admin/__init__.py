"""What administrators ask the server, with keys that are theirs."""
