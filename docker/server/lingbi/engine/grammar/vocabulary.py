"""The tokens of a model as the bytes that they stand for, which is how llguidance knows them."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
RESERVED_PIECE = re.compile(r"\[UNUSED_TOKEN_\d+_?\]")  # the chat symbols are among them
SPACE = "\u2581"  # how SentencePiece writes one
SPLIT = 2  # characters after which text that looks like a special token is split, so that it is none
ENDS = tuple(b'"]}')  # what ends a string, a list or an object
PLAIN = 512  # of the plainest tokens, which are looked at before all 92 544: nearly always one of them is allowed
Allowed = npt.NDArray[np.bool_]  # for each token of a vocabulary, whether it may come next


def piece_bytes(piece: str) -> bytes:
    """What a SentencePiece piece stands for: a byte, or text with its spaces."""
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace(SPACE, " ").encode()


class Vocabulary:
    """A model's tokens for llguidance, which asks for the attributes without an underscore.

    tokens: the bytes of each token; special_token_ids: those that are no text, which no grammar allows.
    """

    def __init__(self, tokenizer: Any, stop_ids: Iterable[int]):
        """tokenizer: lmdeploy's; stop_ids: the tokens that end an answer. It takes half a second."""
        self._tokenizer, model = tokenizer, tokenizer.model.model
        pieces = model.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
        self.tokens = [piece_bytes(piece) for piece in pieces]
        self.stop_ids = frozenset({*stop_ids, model.eos_token_id})
        self.eos_token_id, self.bos_token_id = model.eos_token_id, model.bos_token_id
        reserved = (number for number, piece in enumerate(pieces) if RESERVED_PIECE.fullmatch(piece))
        self.special_token_ids = sorted({*reserved, *model.all_special_ids, *self.stop_ids})
        bytes_pieces = ((number, BYTE_PIECE.fullmatch(piece)) for number, piece in enumerate(pieces))
        self._byte_ids = {int(found[1], 16): number for number, found in bytes_pieces if found}
        self._spelled = {number: self._spell(self.tokens[number].decode()) for number in self.special_token_ids}
        self._plainest_first = np.array(sorted(range(len(self.tokens)), key=self._plainness))
        wrapper = llguidance.TokenizerWrapper(self)
        self.core = llguidance.LLTokenizer(wrapper, eos_token=sorted(self.stop_ids))

    def __call__(self, text: bytes) -> list[int]:
        """The tokens of a text, none of them a special one, so that their bytes are the text's."""
        ids = [part for number in self._encode(text.decode()) for part in self._spelled.get(number, [number])]
        is_text = self.text(ids) == text and self._spelled.keys().isdisjoint(ids)
        return ids if is_text else [self._byte_ids[byte] for byte in text]

    def _spell(self, special: str) -> list[int]:
        """The tokens of text that looks like a special token, split where a prompt's is (prompts.plain)."""
        return self._encode(special[:SPLIT]) + self._encode(special[SPLIT:])

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_bos=False)
        return ids

    def plainest(self, allowed: Allowed) -> int:
        """The token to go on with where no candidate is allowed, so that nothing is known of any token that is.

        The end of the answer comes first, then what ends a string, a list or an object, then the shortest token, because
        it leaves most to the model; among equals, the first of the vocabulary.
        """
        few = self._plainest_first[:PLAIN]
        order = few if allowed[few].any() else self._plainest_first
        return int(order[allowed[order].argmax()])

    def _plainness(self, number: int) -> tuple[bool, bool, int]:
        token = self.tokens[number]
        return number not in self.stop_ids, not token or token[0] not in ENDS, len(token)

    def text(self, ids: Iterable[int]) -> bytes:
        """The bytes that these tokens stand for."""
        return b"".join(self.tokens[number] for number in ids)

    def tokens_until(self, words: Sequence[bytes], before: Sequence[int], ids: Sequence[int]) -> int:
        """How many of the tokens, which follow those before, come until the text has one of these words; all if none has."""
        if not words:
            return len(ids)
        longest = max(map(len, words))
        text = self.text(before[-longest:])  # no token has less than a byte
        for number, token in enumerate(ids):
            if any(word in text for word in words):
                return number
            text = text[-longest:] + self.tokens[token]
        return len(ids)
