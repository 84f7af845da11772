"""Models that take turns, as a visitor of the page meets them: real processes, and answers judged by what the picture shows."""

import re

import pytest
from playwright.sync_api import expect

from lingbi.images.scenes import Scene, Thing, draw
from lingbi.model.catalogue import DEMO_SERVED_NAME
from tests.conftest import running_stack
from tests.on_demand import renamed_demo

SHAPES, LOADS_S = "shapes", 4
SLEEPING, COSTS = "Sleeping until it is asked", "A picture takes 36 tokens of 4096"
# What the page shows for a moment only: the texts of the answers, of the state line and of the choice, each once.
KEEP_SEEN = """() => {
    const note = () => document.querySelectorAll("#chat [data-testid=bot], #phase, #pick option, #facts").forEach((part) => {
        window.seen.add(`${part.id || part.localName}: ${part.textContent.trim()}`);
    });
    window.seen = new Set();
    new MutationObserver(note).observe(document.body, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def turns(tmp_path_factory):
    """The URL of a stack with two models, of which one is loaded at a time: the demo model, and its copy as `shapes`, which takes
    seconds to load, as larger models do."""
    folder = tmp_path_factory.mktemp("turns")
    shapes = renamed_demo(folder / SHAPES)
    code = shapes / "modeling_internlm_xcomposer2.py"
    code.write_text(f"import time\ntime.sleep({LOADS_S})\n{code.read_text()}")
    with running_stack(folder / "state", "--model", shapes, LINGBI_ON_DEMAND="true", LINGBI_STAY_S="1") as report:
        yield report["url"]


def header_height(visitor) -> float:
    return visitor.page.locator("#header").bounding_box()["height"]


def test_a_visitor_sees_a_model_sleep_load_and_answer_and_then_another_in_its_place(visit, turns, tmp_path):
    picture = tmp_path / "picture.png"
    draw(Scene((Thing("red", "circle", size=0.5),), width=640, height=480)).save(picture)
    visitor = visit(turns, is_in=False)
    visitor.page.goto(turns)
    pick, phase = visitor.page.get_by_label("Model that answers"), visitor.page.locator("#phase")
    options = pick.locator("option")
    expect(options).to_have_text([f"{name} · {SLEEPING}" for name in (DEMO_SERVED_NAME, SHAPES)])
    expect(visitor.page.locator("#facts")).to_have_text(COSTS)
    visitor.page.evaluate(KEEP_SEEN)
    height = header_height(visitor)

    visitor.ask("What colour is it?", picture)
    visitor.sees(rf"^\s*{DEMO_SERVED_NAME}\s.*[Rr]ed")
    expect(options).to_have_text([f"{DEMO_SERVED_NAME} · Ready", f"{SHAPES} · {SLEEPING}"])
    expect(phase).to_have_text("Ready")

    pick.select_option(SHAPES)
    expect(phase).to_have_text(SLEEPING)
    visitor.ask("What shape is it?")
    expect(visitor.answers.last).to_contain_text("The model is being loaded: 5 %")
    expect(phase).to_have_text(re.compile("^Being loaded"))
    expect(options.nth(0)).to_have_text(f"{DEMO_SERVED_NAME} · {SLEEPING}")
    assert header_height(visitor) == height  # or the conversation would move
    visitor.shot("turns-loading")
    visitor.sees(rf"^\s*{SHAPES}\s.*circle", 1)
    expect(options).to_have_text([f"{DEMO_SERVED_NAME} · {SLEEPING}", f"{SHAPES} · Ready"])
    expect(visitor.answers.nth(0)).to_contain_text(DEMO_SERVED_NAME)  # what was said by the other one stays so
    assert header_height(visitor) == height
    visitor.shot("turns-answered")
    told = "\n".join(visitor.page.evaluate("[...window.seen]"))
    assert re.search(
        rf"{SHAPES}\s*The model is being loaded: \d+ %", told
    ), told  # its name stands there from the beginning
    assert f"option: {SHAPES} · Being loaded" in told and set(re.findall("^facts: (.*)$", told, re.M)) == {COSTS}, told
