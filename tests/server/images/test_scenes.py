"""The checker of answers: right ones pass, and each way of being wrong is seen."""

import pytest

from lingbi.images.scenes import Scene, Thing, draw, find_fault, is_answer_right

ONE = Scene((Thing("red", "circle"),))
TWO = Scene((Thing("red", "circle", 0.2, 0.2, 0.2), Thing("blue", "star", 0.8, 0.8, 0.3)), background="yellow")

RIGHT = [
    ("describe", ONE, "The picture shows a red circle in the centre."),
    ("describe", ONE, "图中有一个红色的圆形，位于中间。"),
    ("describe", ONE, "A red circle on a white background."),
    ("describe", TWO, "The picture shows 2 objects: a red circle at the top left and a blue star at the bottom right."),
    ("describe", TWO, "图中有2个图形：红色的圆形在左上角，蓝色的五角星在右下角。背景是黄色。"),
    ("colour", ONE, "红色。"),
    ("shape", TWO, "圆形和五角星。"),
    ("number", TWO, "There are two objects."),
    ("number", TWO, "有2个。"),
    ("position", ONE, "It is in the middle."),
    ("position", TWO, "红色的圆形在左上角，蓝色的五角星在右下角。"),
    ("background", TWO, "The background is yellow."),
    ("yes", ONE, "Yes, it is red."),
    ("no", ONE, "不是，是红色。"),
]
WRONG = [
    ("describe", ONE, "The picture shows a red square in the centre."),
    ("describe", ONE, "The picture shows a red circle at the top left."),
    ("describe", ONE, "A red circle on a black background."),
    ("describe", ONE, "A red circle in the centre and a blue star."),
    ("describe", ONE, "图中有一个绿色的圆形，位于中间。"),
    ("describe", TWO, "The picture shows a red circle at the top left."),
    ("describe", TWO, "A red star at the top left and a blue circle at the bottom right."),
    ("describe", TWO, "A red circle at the bottom right and a blue star at the top left."),
    ("describe", TWO, "图中有3个图形：红色的圆形在左上角，蓝色的五角星在右下角。"),
    ("colour", ONE, "It is red or blue."),
    ("colour", ONE, "I do not know."),
    ("shape", TWO, "圆形。"),
    ("number", TWO, "There are 3 objects."),
    ("number", TWO, "There are some objects."),
    ("position", ONE, "在左边。"),
    ("background", TWO, "背景是白色。"),
    ("yes", ONE, "No, it is not."),
    ("no", ONE, "是的。"),
    ("describe", ONE, " "),
]


@pytest.mark.parametrize("kind, scene, answer", RIGHT)
def test_right_answers_pass(kind, scene, answer):
    assert find_fault(kind, scene, answer) is None


@pytest.mark.parametrize("kind, scene, answer", WRONG)
def test_wrong_answers_are_seen(kind, scene, answer):
    assert not is_answer_right(kind, scene, answer)


def test_an_object_near_a_border_may_be_called_by_either_side():
    scene = Scene((Thing("red", "circle", x=0.36, y=0.5, size=0.2),))
    assert is_answer_right("position", scene, "It is on the left.")
    assert is_answer_right("position", scene, "It is in the centre.")
    assert not is_answer_right("position", scene, "It is on the right.")


def test_a_question_about_nothing_wants_to_hear_that_there_is_none():
    assert is_answer_right("colour", ONE, "There is none.", about=())
    assert not is_answer_right("colour", ONE, "It is red.", about=())


def test_a_scene_is_drawn_where_it_says():
    image = draw(TWO)
    assert image.size == (TWO.width, TWO.height)
    assert image.getpixel((64, 64)) == (220, 20, 20)
    assert image.getpixel((256, 256)) == (20, 40, 220)
    assert image.getpixel((300, 10)) == (250, 220, 0)
