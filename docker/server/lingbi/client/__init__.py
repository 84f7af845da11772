"""How commands find a server that runs, and connect to it."""
