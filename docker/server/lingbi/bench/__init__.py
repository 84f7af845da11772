"""scripts/bench: how fast a server answers, and stock lmdeploy beside it on the same machine and weights."""
