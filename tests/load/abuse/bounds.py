"""The bounds that honest visitors, memory and disk have to stay within while somebody attacks; a run outside of them fails.

On two cores the attackers take part of what they attack: they run on the same machine.
"""

# Honest answers: every one is right, and none takes longer.
MAX_WAIT_S = 30.0
# The 95th percentile of the time to the first token: this many times the one without attack, or if that is less, this.
MAX_FIRST_TOKEN_RATIO = 2.0
MAX_FIRST_TOKEN_S = {"text": 1.0, "picture": 2.0}

# Memory at its highest, MiB, of all processes of a part; what Compose gives it, less what a start needs.
MAX_MEMORY_MIB = {"page": 768, "worker": 2560, "gateway": 256}
# Files that the page and the gateway keep of requests, at their most, MiB.
MAX_DISK_MIB = 4096

MAX_RESTARTS = 0
# After the last attacker has left: nothing is asked any more, and the processors have nothing to do.
MAX_REST_S = 10.0
REST_CORES = 0.2  # what a stack at rest takes of one core

# Of requests that nobody may make any more; one of them may have been on its way.
MAX_ADMITTED = 1
