"""Makes a grammar in another process first, which may be ended.

What llguidance does for a schema has no bound: 50 bytes of `multipleOf`, or 3 KB of references, take all memory. It cannot
be stopped from within, and ends its process where there is no memory left.
"""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import llguidance

log = logging.getLogger(__name__)
CPU_S = 2
MEMORY_BYTES = 32 << 20
BOUNDS = f"{CPU_S} s, or {MEMORY_BYTES >> 20} MB"
WAIT_S = 60  # on a machine that is busy with something else
PROGRAM = Path(__file__).with_name("trial_process.py")
PACKAGES = Path(llguidance.__file__).parents[1]


class CostlyError(Exception):
    """A grammar took more time or memory than it may."""


def first_fault(
    grammars: list[str], limits: dict[str, Any], passed_over: tuple[str, ...] = ()
) -> tuple[int, str] | None:
    """The number of the first bad grammar, and what is wrong with it; faults with words of `passed_over` do not count.

    Raises CostlyError if all together take more than the bounds above.
    """
    task = {"grammars": grammars, "limits": limits, "passed_over": passed_over}
    bounds = {"cpu_s": CPU_S, "memory_bytes": MEMORY_BYTES}
    command = [sys.executable, "-I", "-S", str(PROGRAM), str(PACKAGES)]
    try:
        ended = subprocess.run(
            command, input=json.dumps(task | bounds).encode(), capture_output=True, timeout=WAIT_S, check=True
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        if isinstance(error, subprocess.CalledProcessError) and error.returncode > 0:  # not by a signal, as at a bound
            log.warning("a grammar could not be tried: %s", error.stderr.decode(errors="replace").strip()[-300:])
        raise CostlyError from error
    found = json.loads(ended.stdout)
    return found and (found[0], found[1])
