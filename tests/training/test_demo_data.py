"""What the demo model is taught must be true, and what is committed must be small and of the published layout."""

import random
from collections import Counter

import pytest
import sentencepiece
import torch

from lingbi.images.scene_json import json_fault
from lingbi.images.scenes import POSITIONS, Thing, find_fault
from training.demo import MODEL_FOLDER
from training.demo.conversations import KINDS, conversation, turn_of_kind
from training.demo.heldout import heldout_picture
from training.demo.pictures import FINE_GRID, GRID, SIDE, WAYS, covering, picture_of, random_scene, views_of
from training.demo.samples import (
    COLOUR_NAMES,
    PICTURE_TOKENS,
    QUESTION_KINDS,
    QUESTIONS_IN_SERIES,
    SAYINGS,
    TAUGHT,
    question_classes,
    questions_of,
    samples_of,
    token_classes,
)
from training.demo.template import IGNORED, STOP, TEMPLATE

MAX_WEIGHTS_BYTES = 8_000_000
N_SCENES = 150
# a turn is made for a scene or, where the scene does not allow the kind, not at all
LANGUAGES = ("en", "zh")


@pytest.fixture(scope="module")
def tokenizer():
    return sentencepiece.SentencePieceProcessor(model_file=str(MODEL_FOLDER / "tokenizer.model"))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "talk"])
def test_taught_answers_are_right(kind):
    rng = random.Random(kind)
    turns = [
        (s, turn_of_kind(rng, s, language, kind)) for s in map(random_scene, [rng] * N_SCENES) for language in LANGUAGES
    ]
    made = [(scene, turn) for scene, turn in turns if turn]
    assert len(made) > N_SCENES / 4
    for scene, turn in made:
        fault = (
            json_fault(turn.about, turn.answer)
            if kind == "json"
            else find_fault(turn.check, scene, turn.answer, turn.about)
        )
        assert fault is None, turn


def test_every_token_of_an_answer_is_told_what_its_question_asks(tokenizer):
    for sample in samples_of("asked", tokenizer.encode, 40):
        assert [turn >= 0 for turn in sample.turns] == [label != IGNORED for label in sample.labels]
        assert [turn for turn in dict.fromkeys(sample.turns) if turn >= 0] == list(range(len(sample.questions)))


def test_questions_to_read_have_no_picture_and_one_token_to_learn_from_each(tokenizer):
    texts = questions_of("read", tokenizer.encode, 10)
    assert len(texts) == 10 and len({tuple(text.ids) for text in texts}) == 10
    stop = tokenizer.encode(STOP)[0]
    for text in texts:
        assert min(text.ids) >= 0
        assert [label for label in text.labels if label != IGNORED] == [stop] * QUESTIONS_IN_SERIES
        assert [turn for turn in text.turns if turn >= 0] == list(range(QUESTIONS_IN_SERIES))
        assert len(text.questions) == QUESTIONS_IN_SERIES
    assert [text.ids for text in questions_of("read", tokenizer.encode, 10)] == [text.ids for text in texts]


def test_the_hard_kinds_are_taught_more_often_and_none_is_left_out():
    assert set(TAUGHT) == set(KINDS)
    assert min(TAUGHT.values()) > 0
    rng, asked, usual = random.Random(4), Counter(), Counter()
    for scene in map(random_scene, [rng] * N_SCENES):
        asked.update(turn.kind for turn in conversation(rng, scene, 8, TAUGHT))
    for scene in map(random_scene, [rng] * N_SCENES):
        usual.update(turn.kind for turn in conversation(rng, scene, 8))
    assert asked.pop("json") > 0 == usual["json"]  # a score asks for JSON by itself
    for kind in ("colour_of", "shape_of", "position_of"):
        assert asked[kind] / sum(asked.values()) > usual[kind] / sum(usual.values())
    assert asked["describe"] < usual["describe"]


def test_what_a_question_names_is_in_its_words():
    rng, seen = random.Random(6), 0
    for scene in map(random_scene, [rng] * N_SCENES):
        turn = turn_of_kind(rng, scene, "en", "shape_of")
        if turn:
            kind, colour, shape, place = question_classes(turn)
            named = COLOUR_NAMES[colour - 1].replace("grey", "gray")
            assert (QUESTION_KINDS[kind], shape, place) == ("shape_of", 0, 0)
            seen += named in turn.question.lower().replace("grey", "gray")  # but for slips of the pen
    assert seen > N_SCENES / 4


def test_pictures_hold_what_the_scene_says():
    rng = random.Random(5)
    for _ in range(50):
        scene = random_scene(rng)
        pixels, cover = picture_of(rng, scene), covering(scene, FINE_GRID)
        assert pixels.shape == (SIDE, SIDE, 3)
        assert set(cover.flat) - {0} == set(range(1, len(scene.things) + 1))


def test_picture_tokens_say_what_is_in_their_cell():
    rng = random.Random(8)
    for _ in range(50):
        scene = random_scene(rng)
        for view in views_of(rng, scene, len(WAYS)):
            says = token_classes(view).reshape(GRID, GRID, -1)[..., 0]
            for thing in view.scene.things:
                alike = {other for other in view.scene.things if other.position == thing.position}
                row, column = (2 * part for part in divmod(POSITIONS.index(thing.position), 3))
                said = [SAYINGS[says[row + i, column + j]] for i, j in ((0, 0), (0, 1), (1, 0))]
                assert said in [[other.colour, other.shape, other.position] for other in alike]
            assert SAYINGS[says[3, 3]] == len(scene.things)


def test_a_turned_view_shows_each_thing_where_it_says():
    """Its pixels are a filled thing's own at its centre, and its cells are that thing's."""
    rng, seen = random.Random(9), 0
    for _ in range(50):
        scene = random_scene(rng)
        for view in views_of(rng, scene, len(WAYS)):
            for i, thing in enumerate(view.scene.things):
                if thing.is_hollow or thing.corners or thing.size < 0.3:
                    continue
                row, column = (min(SIDE - 1, int(part * SIDE)) for part in (thing.y, thing.x))
                assert abs(view.pixels[row, column].astype(int) - thing.rgb).max() < 60, (view.scene, thing)
                cells = view.covers[FINE_GRID]
                assert cells[row * FINE_GRID // SIDE, column * FINE_GRID // SIDE] == i + 1
                seen += 1
    assert seen > 100


def test_same_seed_same_samples(tokenizer):
    first, second = (samples_of("a", tokenizer.encode, 8) for _ in range(2))
    assert [sample.ids for sample in first] == [sample.ids for sample in second]
    assert all((a.pixels == b.pixels).all() for a, b in zip(first, second, strict=False))


def test_only_answers_are_learnt(tokenizer):
    stop = tokenizer.encode(STOP)[0]
    for sample in samples_of("b", tokenizer.encode, 30):
        assert sum(i < 0 for i in sample.ids) in (0, PICTURE_TOKENS)
        answers = tokenizer.decode([label for label in sample.labels if label >= 0]).split(STOP)
        assert sample.labels[-1] == stop and sample.ids[-1] == stop
        assert all(answer.strip()[-1] in ".!。！}" for answer in answers[:-1])


def test_prompt_is_long_enough_for_the_attention_kernels(tokenizer):
    assert len(tokenizer.encode(TEMPLATE.messages2prompt([dict(role="user", content="")]))) >= 64


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("图中有一个红色的圆形，位于中间。", "It is  red.\n", "¿é😀 龘 \t", " [UNUSED_TOKEN_145] "):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_heldout_pictures_are_not_empty():
    rng = random.Random(3)
    for i in range(6):
        image, scene = heldout_picture(rng, i)
        assert scene.things and len(image.convert("RGB").getcolors(1 << 24)) > 1


def test_committed_weights_are_small_and_in_half_precision():
    path = MODEL_FOLDER / "pytorch_model.bin"
    assert path.stat().st_size < MAX_WEIGHTS_BYTES
    assert {tensor.dtype for tensor in torch.load(path, map_location="cpu", weights_only=True).values()} == {
        torch.float16
    }


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ('{"objects":[{"colour":"red","shape":"circle","position":"top left"}]}', None),
        ('[{"position": "top left", "shape": "round", "color": "Red", "size": 3}]', None),
        ('{"物体": [{"颜色": "红", "形状": "圆形", "位置": "左上角"}]}', None),
        ('{"objects":[{"colour":"blue","shape":"circle","position":"top left"}]}', "the picture"),
        ('{"objects":[{"colour":"red","shape":"circle","position":"bottom"}]}', "the picture"),
        ('{"objects":[{"colour":"red or blue","shape":"circle","position":"top left"}]}', "the picture"),
        ('{"objects":[]}', "the picture"),
        ('{"objects":[{"colour":"red","shape":"circle"}]}', "no list of objects"),
        ('{"objects":["red circle"]}', "no list of objects"),
        ("A red circle at the top left.", "no JSON"),
    ],
)
def test_a_list_as_json_is_judged_by_its_content(answer, fault):
    found = json_fault([Thing("red", "circle", x=0.1, y=0.1)], answer)
    assert (found is None) if fault is None else fault in found
