"""LINGBI_MODEL names one model as ever, or several with the numbers of their workers; what cannot be is refused by name."""

import pytest

from lingbi.errors import ConfigurationError
from lingbi.launch.up import parse as parse_up
from lingbi.model.wanted import MOST_WORKERS, WantedModel, canonical, only, parse, spelled


@pytest.mark.parametrize(
    ("text", "models"),
    [
        ("auto", [("auto", None)]),
        ("vl-7b", [("vl-7b", None)]),
        ("vl-7b*3", [("vl-7b", 3)]),
        ("vl-7b*3,4khd-7b", [("vl-7b", 3), ("4khd-7b", None)]),
        (" vl-7b , 4khd-7b * 2 ", [("vl-7b", None), ("4khd-7b", 2)]),
        ("/data/mine,owner/name,demo", [("/data/mine", None), ("owner/name", None), ("demo", None)]),
        (f"demo*{MOST_WORKERS}", [("demo", MOST_WORKERS)]),
        ("", [("", None)]),
    ],
)
def test_models_are_named_with_commas_and_counted_with_a_star(text, models):
    found = parse(text)
    assert found == tuple(WantedModel(*model) for model in models)
    assert parse(spelled(found)) == found


def test_a_folder_keeps_its_name_whatever_is_in_it(tmp_path):
    for name in ("a,b", "vl-7b*3", "x*y"):
        folder = tmp_path / name
        folder.mkdir()
        assert parse(str(folder)) == (WantedModel(str(folder)),)
    assert parse(f"{tmp_path}/x*y,demo") == (WantedModel(f"{tmp_path}/x*y"), WantedModel("demo"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vl-7b,vl-7b", "vl-7b is there twice; write vl-7b*2"),
        ("vl-7b*3,demo,vl-7b*2", "vl-7b is there twice; write vl-7b*5"),
        (
            "vl-7b,internlm-xcomposer2-vl-7b",
            "vl-7b is there twice, also as internlm-xcomposer2-vl-7b; write vl-7b*2",
        ),
        ("VL-7B,Shanghai_AI_Laboratory/internlm-xcomposer2-vl-7b", "VL-7B is there twice"),
        ("demo,internlm-xcomposer2-demo", "demo is there twice"),
        ("vl-7b,", "a name is missing beside a comma"),
        (",", "a name is missing"),
        ("auto,vl-7b", "auto chooses one model"),
        ("vl-7b,auto*2", "auto chooses one model"),
        ("vl-7b*0", "'vl-7b*0' is not NAME*WORKERS with 1 to 64 workers"),
        ("demo,vl-7b*65", "'vl-7b*65' is not"),
        ("vl-7b*99999", "is not NAME*WORKERS"),
        ("vl-7b*", "is not NAME*WORKERS"),
        ("vl-7b*two", "is not NAME*WORKERS"),
        ("*2", "is not NAME*WORKERS"),
        ("vl-7b*2*2", "is not NAME*WORKERS"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_value(text, said):
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert f"LINGBI_MODEL={text!r}" in str(caught.value) and said in str(caught.value)


def test_what_takes_one_model_refuses_several_by_its_own_name():
    assert only("vl-7b*2", "scripts/pipeline") == "vl-7b"
    with pytest.raises(ConfigurationError, match="several models, and scripts/pipeline takes one; give it in --model"):
        only("vl-7b,demo", "scripts/pipeline")


def test_a_published_model_has_one_canonical_name():
    assert {canonical(name) for name in ("4khd-7b", "internlm-xcomposer2-4khd-7b", "4KHD-7b")} == {"4khd-7b"}
    assert canonical("/some/folder") == "/some/folder"


def test_the_option_may_be_given_several_times():
    assert parse_up([]).model is None
    assert parse_up(["--model", "vl-7b"]).model == "vl-7b"
    assert parse_up(["--model", "vl-7b*3", "--model", "4khd-7b,demo"]).model == "vl-7b*3,4khd-7b,demo"
