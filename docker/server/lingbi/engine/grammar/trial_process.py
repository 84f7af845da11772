"""Makes grammars in a process of its own, which says what is wrong with the first bad one: started by trial.py.

It imports llguidance and nothing else, so that it starts in a twentieth of a second. Its tokens are the 256 bytes: what
llguidance does for a grammar before the first token does not depend on the model's.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any


class Bytes:
    """A vocabulary of single bytes for llguidance."""

    tokens = [bytes([byte]) for byte in range(256)] + [b"</s>"]
    eos_token_id = 256
    bos_token_id = None
    special_token_ids = [256]

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def fault_of(llguidance: Any, core: Any, grammar: str, limits: dict[str, Any]) -> str:
    """What is wrong with a grammar; empty where nothing is."""
    matcher = llguidance.LLMatcher(core, grammar, log_level=0, limits=llguidance.LLParserLimits(**limits))
    is_allowed = not matcher.is_error() and any(matcher.compute_bitmask())
    return matcher.get_error() or ("" if is_allowed else "allows no answer at all")


def limit(cpu_s: int, memory_bytes: int) -> None:
    """End this process when it takes more: memory on top of what it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bounds = {
        resource.RLIMIT_AS: pages * resource.getpagesize() + memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in bounds.items():
        allowed = resource.getrlimit(kind)[1]
        most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Read a task as JSON, write the number and the fault of the first bad grammar, or null."""
    sys.path.append(sys.argv[1])
    import llguidance

    task = json.load(sys.stdin)
    core = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))
    limit(task["cpu_s"], task["memory_bytes"])
    for number, grammar in enumerate(task["grammars"]):
        fault = fault_of(llguidance, core, grammar, task["limits"])
        if fault and not any(word in fault for word in task["passed_over"]):
            json.dump([number, fault], sys.stdout)
            return
    json.dump(None, sys.stdout)


if __name__ == "__main__":
    main()
