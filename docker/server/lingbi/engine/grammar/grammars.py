"""Makes grammars of the forms that requests ask for, and remembers the latest ones that were found good.

llguidance was chosen by measurement (docs/dependencies.md): it reads JSON Schema, regular expressions and texts, needs no
other package, and makes a grammar in a millisecond and a mask in a tenth of one.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llguidance
from cachetools import LRUCache

from lingbi.api_errors import BadRequest
from lingbi.engine.grammar import trial
from lingbi.engine.grammar.forms import ANY_OBJECT, Form
from lingbi.engine.grammar.keywords import patterns_of, refusal, sharpen
from lingbi.engine.grammar.matcher import Matcher, first_line
from lingbi.engine.grammar.plainness import is_plain
from lingbi.engine.grammar.rehearsal import rehearse
from lingbi.engine.grammar.schemas import Node, check_schema, target_of
from lingbi.engine.grammar.vocabulary import Vocabulary

KEPT_GRAMMARS = 64
NEW_AT_ONCE = 2
CHOICES = 1024
PATTERNS = 32  # of a schema; a costly one takes 80 ms to be found out
NODES_TRIED = 256  # schemas of which each is tried alone to find which has no answer
# Written as Python's json.dumps writes it, so that all between the values is forced and costs no step of the model. No
# \u escapes: by them a name that is taken could come again, with any value.
WRITTEN: dict[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}
OVERLAPPING = "oneOf constraints are not supported"  # by llguidance, but for schemas that exclude each other
UNSATISFIABLE = "NoExtensionBias"  # its word for a grammar of which no text is a beginning
FROM_ROOT = ("does not exist",)  # said of references where a schema is tried alone, and the root is not the root
# What a grammar may cost: 50 ms to make, and 40 MB for the states that it comes to in an answer.
LIMITS: dict[str, Any] = {
    "initial_lexer_fuel": 60_000,
    "step_lexer_fuel": 50_000,
    "max_lexer_states": 40_000,
    "verbose_errors": False,
}


class Grammars:
    """The grammars of a worker. All is done in threads, in which llguidance leaves the interpreter alone.

    Each matcher has a grammar of its own, although making one takes a millisecond: copies of one share the states that
    their answers come to, so that it would fail after some answers.
    """

    def __init__(self, vocabulary: Callable[[], Vocabulary]) -> None:
        """vocabulary: makes the model's; it is called for the first grammar."""
        self._make_vocabulary = vocabulary
        self._vocabulary: Vocabulary | None = None
        self._new, self._known = ThreadPoolExecutor(NEW_AT_ONCE, "new-grammar"), ThreadPoolExecutor(1, "grammar")
        self._making, self._lock = threading.Lock(), threading.Lock()  # of the vocabulary; of what follows
        self._kept: LRUCache[Any, str] = LRUCache(KEPT_GRAMMARS)  # by form, as llguidance reads them
        self._refused: LRUCache[Any, BadRequest] = LRUCache(KEPT_GRAMMARS)  # by form and place

    async def matcher(self, form: Form) -> Matcher:
        """A matcher at the beginning of an answer in this form. Raises BadRequest, which names the place."""
        key = form.key
        with self._lock:
            thread = self._known if key in self._kept or (key, form.place) in self._refused else self._new
        return await asyncio.get_running_loop().run_in_executor(thread, self.find, form)

    async def warm_up(self) -> None:
        """Make the vocabulary, which holds the interpreter for a moment, before there are requests."""
        await self.matcher(Form("schema", ANY_OBJECT, ""))

    def find(self, form: Form) -> Matcher:
        """The same, in the thread that calls it."""
        key = form.key
        with self._lock:
            grammar, refused = self._kept.get(key), self._refused.get((key, form.place))
        if refused:
            raise BadRequest(str(refused), refused.param)
        return self._compiled(grammar or self._tried(form), form.place)

    def _tried(self, form: Form) -> str:
        """The grammar of a form that is new. Raises BadRequest."""
        try:
            grammar = self._made(form)
        except BadRequest as refused:
            with self._lock:
                self._refused[form.key, form.place] = BadRequest(str(refused), refused.param)
            raise
        with self._lock:
            self._kept[form.key] = grammar
        return grammar

    def _made(self, form: Form) -> str:
        """The grammar of a form that was found good. Raises BadRequest."""
        makers = {"schema": self._of_schema, "regex": self._of_regex, "choice": self._of_choices}
        return makers[form.kind](form)

    def _of_schema(self, form: Form) -> str:
        schema = json.loads(form.written)  # one of its own, which is changed
        nodes = check_schema(schema, form.place, form.is_strict)
        self._check_patterns(nodes)
        needs_trial = not is_plain(schema, lambda reference: target_of(reference, schema)[0])
        for node in nodes:
            if isinstance(node.schema, dict):
                sharpen(node.schema)
        grammar = _schema_grammar(schema, form.is_strict)
        matcher = None if needs_trial else self._if_good(grammar, form.place)
        if matcher is None:
            _try(grammar, form, schema, nodes)
            matcher = self._compiled(grammar, form.place)
        rehearse(matcher, form.place)
        return grammar

    def _if_good(self, grammar: str, place: str) -> Matcher | None:
        try:
            return self._compiled(grammar, place)
        except BadRequest:
            return None  # a trial tells which part is at fault

    def _check_patterns(self, nodes: list[Node]) -> None:
        """Refuse a pattern that is bad or costly alone, so that the refusal names its place."""
        found: dict[str, str] = {}
        for node in nodes:
            for pattern, place in patterns_of(node.schema, node.place) if isinstance(node.schema, dict) else ():
                if found.setdefault(pattern, place) == place:
                    if len(found) > PATTERNS:
                        raise refusal(place, f"is one of more than {PATTERNS} different patterns; use fewer")
                    self._of_pattern(pattern, place)

    def _of_regex(self, form: Form) -> str:
        return self._of_pattern(form.source, form.place)

    def _of_pattern(self, pattern: str, place: str) -> str:
        grammar = llguidance.LLMatcher.grammar_from_regex(pattern)
        rehearse(self._compiled(grammar, place), place)
        return grammar

    def _of_choices(self, form: Form) -> str:
        if not 0 < len(form.source) <= CHOICES or not all(form.source):
            raise refusal(form.place, f"needs 1 to {CHOICES} texts, none of them empty")
        texts = " | ".join(json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f") for text in form.source)
        return llguidance.LLMatcher.grammar_from_lark(f"start: {texts}")

    def _compiled(self, grammar: str, place: str) -> Matcher:
        """A matcher of llguidance's grammar, with its first mask made. Raises BadRequest where nothing is allowed."""
        vocabulary = self._ready_vocabulary()
        limits = llguidance.LLParserLimits(**LIMITS)
        core = llguidance.LLMatcher(vocabulary.core, grammar, log_level=0, limits=limits)
        if core.is_error():
            raise refusal(place, _reason(core.get_error()))
        matcher = Matcher(core, vocabulary, place)
        if not matcher.allowed().any():
            raise refusal(place, "allows no answer at all")
        return matcher

    def _ready_vocabulary(self) -> Vocabulary:
        with self._making:
            self._vocabulary = self._vocabulary or self._make_vocabulary()
        return self._vocabulary


def _try(grammar: str, form: Form, schema: dict[str, Any], nodes: list[Node]) -> None:
    """Raise BadRequest for a grammar that is bad, or costs too much."""
    try:
        fault = trial.first_fault([grammar], LIMITS)
    except trial.CostlyError:
        raise refusal(
            form.place, f"takes too much work to be held to (more than {trial.BOUNDS}); simplify it"
        ) from None
    if fault:
        raise _innermost(form, schema, nodes, fault[1])


def _innermost(form: Form, schema: dict[str, Any], nodes: list[Node], fault: str) -> BadRequest:
    """The refusal of the innermost schema that is at fault, so that it names the place; else of the whole."""
    shared = {word: schema[word] for word in ("$defs", "definitions") if word in schema}
    deepest = [node for node in sorted(nodes[1:], key=lambda node: -node.depth) if isinstance(node.schema, dict)]
    tried = deepest[:NODES_TRIED]
    grammars = [_schema_grammar(shared | node.schema, form.is_strict) for node in tried]
    try:
        inner = trial.first_fault(grammars, LIMITS, FROM_ROOT) if grammars else None
    except trial.CostlyError:
        inner = None
    place, fault = (tried[inner[0]].place, inner[1]) if inner else (form.place, fault)
    return refusal(place, _reason(fault))


def _schema_grammar(schema: Any, is_strict: bool) -> str:
    options: Any = WRITTEN | {"lenient": not is_strict}
    return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)


def _reason(message: str) -> str:
    """What is wrong, in one line: of a regular expression the end, before which it is drawn; else the beginning."""
    if message.startswith(OVERLAPPING):
        return "has a oneOf whose schemas may allow the same value, as far as lingbi can see; use anyOf"
    if message == UNSATISFIABLE:
        return "allows no answer at all"
    told = [line for line in message.split("\n") if line.startswith("error: ")]
    if told:
        return f"is no regular expression that can be held to: {told[0].removeprefix('error: ')[:200]}"
    return first_line(message)
