"""Makes grammars of the forms that requests ask for, and keeps the latest ones.

llguidance was chosen by measurement (docs/dependencies.md): it reads JSON Schema, regular expressions and texts, needs no
other package, and makes a grammar in a millisecond and a mask in a tenth of one.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llguidance
from cachetools import LRUCache

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar.forms import ANY_OBJECT, Form
from lingbi.engine.grammar.matcher import Matcher, first_line
from lingbi.engine.grammar.schemas import Node, check_schema
from lingbi.engine.grammar.vocabulary import Vocabulary

KEPT_GRAMMARS = 64
SOURCE_BYTES = 32 << 10
CHOICES = 1024
PATTERNS = 32  # of a schema; a costly one takes 80 ms to be found out
TOKENS_TRIED = 6  # of a regular expression
NODES_TRIED = 256  # schemas of which each is tried alone to find which has no answer
# Written as Python's json.dumps writes it, so that all between the values is forced and costs no step of the model.
SEPARATORS: dict[str, Any] = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
OVERLAPPING = "oneOf constraints are not supported"  # by llguidance, but for schemas that exclude each other
# What a grammar may cost: 50 ms to make, and 10 MB for the states that it comes to in an answer.
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 60_000,
    "step_lexer_fuel": 50_000,
    "max_lexer_states": 5000,
    "verbose_errors": False,
}


class Grammars:
    """The grammars of a worker. All is done in a thread of its own, in which llguidance leaves the interpreter alone."""

    def __init__(self, vocabulary: Callable[[], Vocabulary]) -> None:
        """vocabulary: makes the model's; it is called for the first grammar."""
        self._make_vocabulary = vocabulary
        self._vocabulary: Vocabulary | None = None
        self._thread = ThreadPoolExecutor(1, "grammar")
        self._kept: LRUCache[Any, Matcher] = LRUCache(KEPT_GRAMMARS)

    async def matcher(self, form: Form) -> Matcher:
        """A matcher at the beginning of an answer in this form. Raises BadRequest, which names the place."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.find, form)

    async def warm_up(self) -> None:
        """Make the vocabulary, which holds the interpreter for a moment, before there are requests."""
        await self.matcher(Form("schema", ANY_OBJECT, ""))

    def find(self, form: Form) -> Matcher:
        """The same, in the thread that calls it."""
        key = _key(form)
        if key not in self._kept:
            self._kept[key] = self._made(form)
        return self._kept[key].copy(form.place)

    def _made(self, form: Form) -> Matcher:
        self._vocabulary = self._vocabulary or self._make_vocabulary()
        makers = {"schema": self._of_schema, "regex": self._of_regex, "choice": self._of_choices}
        return makers[form.kind](form)

    def _of_schema(self, form: Form) -> Matcher:
        nodes = check_schema(form.source, form.place, form.is_strict)
        self._check_patterns(nodes)
        try:
            return self._compiled(_schema_grammar(form.source, form.is_strict), form.place)
        except BadRequest as refusal:
            raise self._innermost(form, nodes, refusal) from None

    def _check_patterns(self, nodes: list[Node]) -> None:
        """Refuse a pattern that is costly alone, because its cost would only show in the middle of an answer."""
        found: dict[str, str] = {}
        for node in nodes:
            if isinstance(node.schema, dict) and "pattern" in node.schema:
                pattern, place = node.schema["pattern"], f"{node.place}.pattern"
                if not isinstance(pattern, str):
                    raise BadRequest(f"{place}: must be a regular expression as a string", place)
                if found.setdefault(pattern, place) == place:
                    if len(found) > PATTERNS:
                        raise BadRequest(
                            f"{place}: is one of more than {PATTERNS} different patterns; use fewer", place
                        )
                    self._of_pattern(pattern, place)

    def _innermost(self, form: Form, nodes: list[Node], refusal: BadRequest) -> BadRequest:
        """The refusal of the innermost schema that is at fault, so that it names the place; else the refusal given."""
        shared = {word: form.source[word] for word in ("$defs", "definitions") if word in form.source}
        deepest = sorted(nodes[1 : NODES_TRIED + 1], key=lambda node: -node.depth)
        for node in deepest:
            if isinstance(node.schema, dict):
                try:
                    self._compiled(_schema_grammar(shared | node.schema, form.is_strict), node.place)
                except BadRequest as inner:
                    if "does not exist" not in str(inner):  # a reference from the root, which is not the root here
                        return inner
        return refusal

    def _of_regex(self, form: Form) -> Matcher:
        return self._of_pattern(form.source, form.place)

    def _of_pattern(self, pattern: str, place: str) -> Matcher:
        """A matcher of a regular expression, some tokens of which were tried: a costly one shows only then."""
        matcher = self._compiled(llguidance.LLMatcher.grammar_from_regex(pattern), place)
        trial = matcher.copy()
        for _ in range(TOKENS_TRIED):
            if trial.must_end or not trial.take(trial.vocabulary.plainest(trial.allowed())):
                break
        return matcher

    def _of_choices(self, form: Form) -> Matcher:
        if not 0 < len(form.source) <= CHOICES or not all(form.source):
            raise BadRequest(f"{form.place}: needs 1 to {CHOICES} texts, none of them empty", form.place)
        texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in form.source)
        return self._compiled(llguidance.LLMatcher.grammar_from_lark(f"start: {texts}"), form.place)

    def _compiled(self, grammar: str, place: str) -> Matcher:
        """A matcher of llguidance's grammar, with its first mask made. Raises BadRequest where nothing is allowed."""
        assert self._vocabulary
        limits = llguidance.LLParserLimits(**LIMITS)
        core = llguidance.LLMatcher(self._vocabulary.core, grammar, log_level=0, limits=limits)
        if core.is_error():
            raise BadRequest(f"{place}: {_reason(core.get_error())}", place)
        matcher = Matcher(core, self._vocabulary, place)
        if not matcher.allowed().any():
            raise BadRequest(f"{place}: allows no answer at all", place)
        return matcher


def _key(form: Form) -> tuple[str, str, bool]:
    try:
        key = form.key
    except (ValueError, RecursionError):
        raise BadRequest(f"{form.place}: is nested too deep", form.place) from None
    size = len(key[1].encode(errors="replace"))
    if size > SOURCE_BYTES:
        raise BadRequest(
            f"{form.place}: has {size} bytes, and at most {SOURCE_BYTES} are read; ask for less", form.place
        )
    return key


def _schema_grammar(schema: Any, is_strict: bool) -> str:
    options: Any = SEPARATORS | {"lenient": not is_strict}
    return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=options)


def _reason(message: str) -> str:
    """What is wrong, in one line: of a regular expression the end, before which it is drawn; else the beginning."""
    if message.startswith(OVERLAPPING):
        return "has a oneOf whose schemas may allow the same value, which cannot be held to; use anyOf"
    told = [line for line in message.split("\n") if line.startswith("error: ")]
    return told[0].removeprefix("error: ")[:200] if told else first_line(message)
