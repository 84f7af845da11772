"""Which models an inventory gives to a host, and what follows: workers, weights, what it serves before and after its turn."""

import pytest

from tests.ansible.plugins import load

models = load("filter_plugins/models.py")
weights = load("filter_plugins/weights.py")


@pytest.mark.parametrize(
    ("text", "workers", "asked"),
    [("vl-7b", 0, 0), ("vl-7b", 2, 2), ("vl-7b*3", 0, 3), ("vl-7b*2,4khd-7b", 0, 3), ("vl-7b, demo ,lab/shapes", 0, 3)],
)
def test_a_host_runs_as_many_workers_as_its_models_ask_for(text, workers, asked):
    assert models.model_faults(text, "", workers) == [] and models.asked_workers(text, workers) == asked


@pytest.mark.parametrize(
    ("text", "folder", "workers", "said"),
    [
        ("vl-7b,vl-7b", "", 0, "lingbi_model='vl-7b,vl-7b': vl-7b is there twice; write vl-7b*2"),
        ("vl-7b,internlm-xcomposer2-vl-7b", "", 0, "is there twice, also as internlm-xcomposer2-vl-7b"),
        ("vl-7b,,demo", "", 0, "a name is missing beside a comma"),
        ("vl-7b*0", "", 0, "with 1 to 64 workers"),
        ("auto,vl-7b", "", 0, "name every model instead"),
        ("vl-7b,demo", "", 2, "lingbi_workers: 2, and lingbi_model: vl-7b,demo says how many"),
        ("vl-7b,demo", "/share/vl-7b", 0, "lingbi_model_folder: /share/vl-7b holds one model"),
        (["vl-7b"], "", 0, "lingbi_model"),
    ],
)
def test_models_that_no_host_can_serve_are_refused_by_name(text, folder, workers, said):
    faults = models.model_faults(text, folder, workers) if isinstance(text, str) else [f"lingbi_model: {text}"]
    assert len(faults) == 1 and said in faults[0]


def test_two_cards_only_where_needed_is_refused_where_that_decides_how_many_workers_there_are():
    (fault,) = models.model_faults("vl-7b", "", 0, "auto")
    assert "LINGBI_TP: auto: the gateways list a host's workers before it starts any; give lingbi_workers too" in fault
    for text, workers, together in (("vl-7b", 1, "auto"), ("vl-7b*2", 0, "auto"), ("vl-7b", 0, "2"), ("vl-7b", 0, 1)):
        assert models.model_faults(text, "", workers, together) == []


def test_weights_go_only_where_they_are_needed_from_hosts_that_have_them():
    assert models.fetched_models("vl-7b*2,demo,lab/shapes", "") == ["vl-7b", "lab/shapes"]
    assert models.fetched_models("vl-7b", "/share/vl-7b") == []

    def holder(name, needed, **has):
        return {"inventory_hostname": name, "weights_models": needed, "weights_digests": has}

    lab = [holder("1", ["a", "b"]), holder("2", ["a"], a="x"), holder("3", ["c"], c="y"), holder("4", [])]
    assert weights.spreads([weights.weights_holder(item) for item in lab]) == [
        {"model": "a", "order": ["2", "1"]},
        {"model": "b", "order": ["1"]},
    ]
    assert weights.spread_place(["2", "1"], "1") == {"round": 1, "parent": 0}


@pytest.mark.parametrize(
    ("running", "known"),
    [
        ({}, {}),
        ({"model": "vl-7b", "weights": "x"}, {"vl-7b": "x"}),  # as a version before this one recorded it
        ({"model": "demo", "weights": ""}, {}),
        ({"model": "vl-7b,a/b", "weights": {"vl-7b": "x", "a/b": "y"}}, {"vl-7b": "x"}),
    ],
)
def test_the_weights_of_a_host_are_those_that_were_recorded(running, known):
    assert weights.known_weights(running, ["vl-7b", "4khd-7b"]) == known


WELL = {"server": {"state": "running", "health": "healthy"}}
RAN = {"model": "lab/x", "folder": "", "seconds": {"drain": 1.0, "start": 20.0, "smoke": 2.0}}


@pytest.mark.parametrize(
    ("running", "containers", "text", "folder", "before", "after", "seconds"),
    [
        (RAN, WELL, "lab/x*2,demo", "", ["lab/x"], ["lab/x", "demo"], 23.0),
        (RAN, {}, "lab/x", "", [], ["lab/x"], 23.0),  # it is down, and answers for nothing
        ({}, {}, "vl-7b", "", [], ["vl-7b"], None),
        # The same model under another of its names.
        (
            RAN | {"model": "Shanghai_AI_Laboratory/internlm-xcomposer2-vl-7b"},
            WELL,
            "vl-7b",
            "",
            ["vl-7b"],
            ["vl-7b"],
            23.0,
        ),
        ({"model": "vl-7b"}, WELL, "vl-7b", "/share/mine", ["/share/mine"], ["/share/mine"], None),  # an earlier record
        (RAN | {"folder": "/share/a"}, WELL, "lab/x", "", ["/share/a"], ["lab/x"], 23.0),
    ],
)
def test_what_a_host_serves_before_and_after_its_turn(running, containers, text, folder, before, after, seconds):
    state = {"running": running, "containers": containers, "needs": True}
    found = models.turn_of(state, "gpu1", False, text, folder)
    assert found == {"name": "gpu1", "is_due": True, "before": before, "after": after, "seconds": seconds}
