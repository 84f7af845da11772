"""The demo's tokenizer: a small SentencePiece model that can spell any text."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto

from .conversations import conversation, talk_without_picture, turn_of_kind
from .pictures import random_scene
from .template import TEMPLATE

SIZE = 1024
# the last ids, as in the published tokenizer; no other piece may contain them
SYMBOLS = ("\n", "[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]")
N_SCENES = 6000
BORDER = "\x01"


def train_tokenizer(path: Path, seed: int = 0) -> None:
    """Writes a tokenizer.model that has learnt questions, answers and the words of the chat template."""
    words = _template_words()
    trained = _train(_corpus(Random(seed)), SIZE - len(SYMBOLS) - len(words))
    known = {piece.piece for piece in trained.pieces}
    for word in words:
        if word not in known:
            trained.pieces.add(piece=word, score=-1.0)
    while len(trained.pieces) < SIZE - len(SYMBOLS):
        trained.pieces.add(piece=f"[UNUSED_TOKEN_{len(trained.pieces)}_]", score=-100.0)
    for symbol in SYMBOLS:
        trained.pieces.add(piece=symbol, score=0.0, type=proto.ModelProto.SentencePiece.USER_DEFINED)
    trained.trainer_spec.vocab_size = SIZE
    trained.trainer_spec.model_prefix = path.stem  # not the temporary folder, so that the same seed gives the same file
    path.write_bytes(trained.SerializeToString())


def _template_words() -> list[str]:
    """The words of the fixed system message: one token each, so that it costs few tokens, but more than 64 in all."""
    words = re.findall(r" ?[^ \n]+", TEMPLATE.meta_instruction) + ["system", "user", "assistant"]
    return list(dict.fromkeys(word.replace(" ", "\u2581") for word in words))


def _corpus(rng: Random) -> Iterator[str]:
    for _ in range(N_SCENES):
        for turn in conversation(rng, random_scene(rng), 4) + talk_without_picture(rng, 1):
            yield _between_words(turn.question)
            yield _between_words(turn.answer)
        if asked := turn_of_kind(rng, random_scene(rng), rng.choice(["en", "zh"]), "json"):
            yield _between_words(asked.question)
            yield asked.answer


def _between_words(text: str) -> str:
    """Marks where words begin, so that "red" and "circle" become two pieces and not one, "red circle", in Chinese too."""
    return re.sub("((?:的|色(?!的)|在|是|有|和|、)|(?= ))", rf"\1{BORDER}", text)


def _train(sentences: Iterable[str], size: int) -> Any:
    """SentencePiece's ModelProto of a trained model."""
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_prefix=f"{folder}/demo",
            vocab_size=size,
            model_type="unigram",
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            character_coverage=1.0,
            split_by_whitespace=False,  # what stands between two words of JSON, such as `": "`, is one piece
            max_sentencepiece_length=10,
            pretokenization_delimiter=BORDER,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
        )
        return proto.ModelProto.FromString(Path(f"{folder}/demo.model").read_bytes())
