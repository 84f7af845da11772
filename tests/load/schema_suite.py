"""What of JSON Schema's own test suite answers can be bound to: `python -m tests.load.schema_suite --suite FOLDER`.

FOLDER is a copy of https://github.com/json-schema-org/JSON-Schema-Test-Suite; the source archive of the package jsonschema
holds one as `json/`. Each schema of draft 2020-12 is refused, or its grammar must allow the valid instances (their
properties in some order, since an answer has the schema's) and no other. Exits with 1 where one is judged otherwise.
"""

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmdeploy.tokenizer import Tokenizer

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar.forms import Form
from lingbi.engine.grammar.grammars import Grammars
from lingbi.engine.grammar.matcher import Matcher
from lingbi.engine.grammar.vocabulary import Vocabulary
from tests.conftest import DEMO

STOP_ID = 1022  # [UNUSED_TOKEN_145]
DRAFT = "tests/draft2020-12"
ORDERS_TRIED = 720


@dataclass(frozen=True)
class Judged:
    """An instance and what came of it: refused (the schema is), right, strict (valid, not allowed) or loose (the reverse)."""

    file: str
    schema: str
    instance: str
    outcome: str
    reason: str = ""


def judge_all(suite: Path) -> list[Judged]:
    grammars = Grammars(lambda: Vocabulary(Tokenizer(str(DEMO)), [STOP_ID]))
    files = sorted((suite / DRAFT).glob("*.json")) + sorted((suite / DRAFT / "optional/format").glob("*.json"))
    return [judged for path in files for judged in judge_file(grammars, path)]


def judge_file(grammars: Grammars, path: Path) -> Iterator[Judged]:
    for case in json.loads(path.read_text()):
        yield from judge_case(grammars, path.stem, case)


def judge_case(grammars: Grammars, file: str, case: dict[str, Any]) -> Iterator[Judged]:
    """What comes of each instance of a schema in the suite's form."""
    try:
        matcher, refusal = grammars.find(Form("schema", case["schema"], "schema")), ""
    except BadRequest as bad:
        matcher, refusal = None, str(bad)
    for test in case["tests"]:
        name = f"{case['description']}: {test['description']}"
        if matcher is None:
            yield Judged(file, name, json.dumps(test["data"]), "refused", refusal)
            continue
        is_allowed = any(allows(matcher, text) for text in written(test["data"]))
        outcome = "right" if is_allowed == test["valid"] else "strict" if test["valid"] else "loose"
        yield Judged(file, name, json.dumps(test["data"]), outcome)


def allows(matcher: Matcher, text: str) -> bool:
    """Whether this text is a whole answer."""
    trial = matcher.copy()
    try:
        return all(map(trial.take, trial.vocabulary(text.encode()))) and trial.may_end
    except BadRequest:
        return False


def written(value: Any) -> Iterator[str]:
    """An instance as an answer may have it: with its properties in each order, as far as there are not too many."""
    for ordered in itertools.islice(orders(value), ORDERS_TRIED):
        yield json.dumps(ordered, ensure_ascii=False)


def orders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for names in itertools.permutations(value):
            for parts in itertools.product(*(list(itertools.islice(orders(value[name]), 24)) for name in names)):
                yield dict(zip(names, parts, strict=True))
    elif isinstance(value, list):
        yield from map(list, itertools.product(*(list(itertools.islice(orders(part), 24)) for part in value)))
    else:
        yield value


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.schema_suite", description=__doc__.split("\n")[0])
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--all", action="store_true", help="also name the schemas that are refused, with the reason")
    options = parser.parse_args(arguments)
    judged = judge_all(options.suite)
    for each in judged:
        if each.outcome in ("strict", "loose") or (options.all and each.outcome == "refused"):
            print(f"{each.outcome}: {each.file}: {each.schema}: {each.instance[:80]} {each.reason[:100]}")
    counts = Counter(each.outcome for each in judged)
    by_file = Counter((each.file, each.outcome) for each in judged)
    for file in sorted({each.file for each in judged}):
        print(file, {outcome: by_file[file, outcome] for outcome in counts if by_file[file, outcome]})
    print(f"{len(judged)} instances: {dict(counts)}")
    return 0 if judged and not counts["strict"] and not counts["loose"] else 1


if __name__ == "__main__":
    sys.exit(main())
