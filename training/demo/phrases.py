"""How people ask, in Chinese and English: templates that are expanded at random.

In a template, `(a|b)` is a or b, `[a]` is a or nothing, and `{shape}` and the like are filled in afterwards.
"""

import re
from random import Random

INNERMOST = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")


def expand(rng: Random, template: str) -> str:
    """One random text from a template."""
    while True:
        found = INNERMOST.search(template)
        if not found:
            return re.sub(" +", " ", template).strip()
        if found.group(1) is not None:
            chosen = rng.choice(found.group(1).split("|"))
        else:
            chosen = (
                rng.choice([found.group(2), ""])
                if "|" not in found.group(2)
                else rng.choice(found.group(2).split("|") + [""])
            )
        template = template[: found.start()] + chosen + template[found.end() :]
