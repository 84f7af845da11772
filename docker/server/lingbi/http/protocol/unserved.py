"""Fields of the OpenAI API, and of other servers, that lingbi cannot honour.

A request that asks for one is refused, because an answer that silently ignores it would be wrong. Values that change
nothing are accepted, because clients send them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError

NOT_SERVED = "not_served"
LONGEST_READ = 16  # characters; numbers and booleans are shorter, and a parser recurses into brackets


@dataclass(frozen=True)
class Unserved:
    """instead: what a client can do, as the end of a sentence; harmless: the values that change nothing, besides null."""

    instead: str
    harmless: tuple[Any, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """The field's JSON Schema: the values that are taken."""
        return {"enum": [None, *self.harmless], "description": f"not served; {self.instead}"}


_GRAMMAR = Unserved("use response_format, guided_json, guided_regex or guided_choice")
_PENALTY = Unserved("use repetition_penalty", (0,))
_NO_CALLS = Unserved("tools are never called: 'auto' and 'none' are answered in text", ("auto", "none"))
_MIN_TOKENS = Unserved("an answer ends where the model ends it; ignore_eos makes it go on to max_tokens", (0,))
_WHOLE_TURNS = "the model answers with a turn of its own; completions continue a text"
_TOKENS = Unserved("tokens can be neither demanded nor forbidden by their ids", ([], {}))

COMMON: dict[str, Unserved] = {
    "n": Unserved("send the request several times for several answers", (1,)),
    "best_of": Unserved("send the request several times and choose", (1,)),
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "logit_bias": _TOKENS,
    "allowed_token_ids": _TOKENS,
    "bad_words": Unserved("words cannot be forbidden; an answer ends before a word of stop", ([],)),
    "logits_processors": Unserved("use temperature, top_p, top_k or repetition_penalty", ([],)),
    "stop_token_ids": Unserved("use stop, which takes text", ([],)),
    "min_tokens": _MIN_TOKENS,
    "min_new_tokens": _MIN_TOKENS,
    "min_p": Unserved("use top_p or top_k", (0,)),
    "use_beam_search": Unserved("answers are sampled, or greedy with temperature 0", (False,)),
    "include_stop_str_in_output": Unserved("a stop word is never shown", (False,)),
    "truncate_prompt_tokens": Unserved("shorten the prompt"),
    "prompt_logprobs": Unserved("chat completions give log probabilities of the answer with logprobs", (0,)),
    "echo": Unserved("put the prompt before the answer yourself", (False,)),
    "guided_grammar": _GRAMMAR,
    "structured_outputs": _GRAMMAR,
    "structural_tag": _GRAMMAR,
    "json_schema": _GRAMMAR,
    "regex": _GRAMMAR,
    "ebnf": _GRAMMAR,
    "grammar": _GRAMMAR,
}
CHAT: dict[str, Unserved] = COMMON | {
    "tool_choice": _NO_CALLS,
    "function_call": _NO_CALLS,
    "modalities": Unserved("answers are text", (["text"],)),
    "audio": Unserved("answers are text"),
    "continue_final_message": Unserved(_WHOLE_TURNS, (False,)),
    "add_generation_prompt": Unserved(_WHOLE_TURNS, (True,)),
    "documents": Unserved("put their text into a message", ([],)),
    "web_search_options": Unserved("the model sees the request alone"),
    "chat_template": Unserved("the model's own template is used; LINGBI_PROMPT_FORM chooses between its two forms"),
}
COMPLETION: dict[str, Unserved] = COMMON | {
    "logprobs": Unserved("chat completions give log probabilities", (0,)),
    "suffix": Unserved("the model continues a text and fills no gap", ("",)),
}

RESPONSE: dict[str, Unserved] = COMMON | {
    "tool_choice": _NO_CALLS,
    "previous_response_id": Unserved("answers are not stored: send the conversation in input"),
    "conversation": Unserved("conversations are not stored: send them in input"),
    "background": Unserved("wait for the answer, or stream it", (False,)),
    "prompt": Unserved("prompts are not stored: send the text in instructions and input"),
    "truncation": Unserved("shorten the input", ("disabled",)),
    "top_logprobs": Unserved("chat completions give log probabilities", (0,)),
}


def refuse_unserved(data: Any, fields: Mapping[str, Unserved]) -> None:
    """Raise PydanticCustomError, with the field as `param` of its context, for the first of these that data asks for."""
    if not isinstance(data, dict):
        return
    for name in data:
        if name in fields and data[name] is not None and _read(data[name]) not in fields[name].harmless:
            context = {"param": name, "instead": fields[name].instead}
            raise PydanticCustomError(NOT_SERVED, "{param} is not served; {instead}", context)


def _read(value: Any) -> Any:
    """The value, read as JSON where it is a number or a boolean that a client wrote as text."""
    if not isinstance(value, str) or len(value) > LONGEST_READ:
        return value
    try:
        return json.loads(value.lower())
    except ValueError:
        return value
