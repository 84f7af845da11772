"""The table of scripts/lab status: what is as the inventory declares, and a sentence for each thing that is not."""

import copy

import pytest

from host.lab.table import lines_of

ROLLED = {"at": "2026-01-02T03:04:05Z", "before": "0.1.0", "version": "0.2.0", "result": "rolled"}
UNIT = {"runs": "0.2.0", "ill": [], "is_proven": True, "recorded": "0.2.0", "model": "", "last": ROLLED, "workers": {}}
READY = {f"10.0.0.1:{port}": {"how": "ready", "model": "internlm-xcomposer2-vl-7b"} for port in (23333, 23334)}


def second(how, model="internlm-xcomposer2-vl-7b"):
    """The two workers, of which the second is so."""
    return READY | {"10.0.0.1:23334": {"how": how, "model": model}}


SERVER = UNIT | {"model": "vl-7b", "workers": READY}


def lab():
    """One server behind one gateway, all as declared; a fresh copy."""
    server = {"units": {"server": SERVER}, "servers": {}, "holder": {}}
    gateway = {"units": {"gateway": UNIT}, "servers": {"gpu1": {"is_drained": False, "workers": READY}}, "holder": {}}
    declared = {"version": "0.2.0", "model": "vl-7b"}
    return copy.deepcopy(
        [
            declared | {"host": "gpu1", "wanted": ["lingbi_servers"], "report": server},
            declared | {"host": "gate1", "wanted": ["lingbi_gateways"], "report": gateway},
        ]
    )


def test_a_lab_that_is_as_declared_is_a_line_for_each_unit_and_no_fault():
    lines, faults = lines_of(lab())
    assert faults == []
    assert lines[0].split("  ")[0] == "host" and lines[0].index("runs") == lines[1].index("0.2.0", 20)
    assert "vl-7b" in lines[1] and "2/2 ready" in lines[1] and "gate1: serves" in lines[1]
    assert lines[1].endswith("2026-01-02T03:04:05Z 0.1.0 -> 0.2.0: rolled") and "1/1 servers serve" in lines[2]
    assert lines[3:] == ["", "All is as the inventory declares."]


def change(answers, host, **parts):
    """Change a host's answer: its unit's fields, its view of gpu1, or the whole report."""
    answer = answers[["gpu1", "gate1"].index(host)]
    if "report" in parts:
        answer["report"] = parts["report"]
    elif "view" in parts:
        answer["report"]["servers"] = parts["view"]
    else:
        answer["report"]["units"]["server" if host == "gpu1" else "gateway"] |= parts


@pytest.mark.parametrize(
    ("host", "parts", "shown", "told"),
    [
        ("gpu1", {"runs": "0.1.0"}, "0.1.0", "gpu1: the server runs 0.1.0, and the inventory declares 0.2.0"),
        ("gate1", {"runs": "0.1.0"}, "0.1.0", "gate1: the gateway runs 0.1.0"),
        ("gpu1", {"is_proven": False}, "0.2.0", "ended before the test; site or deploy starts it anew"),
        ("gpu1", {"runs": "", "ill": ["server"]}, "nothing", "gpu1: server: not running, or not healthy"),
        ("gate1", {"ill": ["ui"]}, "0.2.0", "gate1: ui: not running, or not healthy"),
        ("gpu1", {"model": "demo"}, "demo", "gpu1: the model is demo, and the inventory declares vl-7b"),
        ("gpu1", {"workers": second("probing")}, "1/2 ready", "worker 10.0.0.1:23334: probing"),
        ("gate1", {"view": {"gpu1": {"is_drained": True, "workers": READY}}}, "gate1: drained", "gpu1: gate1: drained"),
        ("gate1", {"view": {}}, "gate1: not listed", "gpu1: gate1: not listed"),
        (
            "gate1",
            {"view": {"gpu1": {"is_drained": False, "workers": second("cannot be reached: timed out")}}},
            "0/1 servers serve",
            "gpu1: gate1: cannot be reached: timed out",
        ),
        ("gpu1", {"report": {"units": {}, "servers": {}, "holder": {}}}, "nothing", "gpu1: has no server yet; site"),
        (
            "gpu1",
            {"report": {"unreachable": True, "msg": "ssh: connect to host 10.0.0.1 port 22: No route to host\n"}},
            "?",
            "gpu1: cannot be reached over SSH: ssh: connect to host 10.0.0.1 port 22: No route to host",
        ),
        (
            "gpu1",
            {"report": {"failed": True, "msg": "Missing sudo password"}},
            "?",
            "gpu1: gives no answer: Missing sudo",
        ),
    ],
)
def test_what_is_not_as_declared_is_in_the_table_and_told_once(host, parts, shown, told):
    answers = lab()
    change(answers, host, **parts)
    lines, faults = lines_of(answers)
    (fault,) = faults
    assert told in fault and f"  {fault}" in lines
    assert shown in "\n".join(lines[1:3]) and not any("All is as" in line for line in lines)


def test_the_models_of_a_lab_with_several_are_listed_with_their_hosts():
    answers = lab()
    answers[0]["model"] = answers[0]["report"]["units"]["server"]["model"] = "vl-7b,4khd-7b"
    answers[0]["report"]["units"]["server"]["workers"] = second("ready", "internlm-xcomposer2-4khd-7b")
    lines, faults = lines_of(answers)
    assert faults == []
    assert lines[3:6] == [
        "",
        "internlm-xcomposer2-4khd-7b: gpu1 1/1 ready",
        "internlm-xcomposer2-vl-7b: gpu1 1/1 ready",
    ]


def test_a_gateway_that_gives_no_answer_is_no_fault_of_the_servers():
    answers = lab()
    change(answers, "gate1", report={"unreachable": True, "msg": "timed out"})
    lines, faults = lines_of(answers)
    assert faults == ["gate1: cannot be reached over SSH: timed out"] and "gate1: ?" in lines[1]


def test_a_rollout_that_runs_is_told_with_who_started_it():
    answers = lab()
    answers[1]["report"]["holder"] = {"who": "ann", "controller": "desk", "since": "2026-01-02T03:00:00Z"}
    assert lines_of(answers)[0][-1] == ("A rollout holds the lab: ann started it from desk at 2026-01-02T03:00:00Z.")


def test_a_host_of_both_kinds_has_a_line_for_each():
    answers = lab()
    answers[0]["wanted"] = ["lingbi_servers", "lingbi_gateways"]
    answers[0]["report"]["units"]["gateway"] = UNIT
    answers[0]["report"]["servers"] = answers[1]["report"]["servers"]
    lines, faults = lines_of(answers)
    assert faults == [] and [line.split()[:2] for line in lines[1:4]] == [
        ["gpu1", "server"],
        ["gpu1", "gateway"],
        ["gate1", "gateway"],
    ]
    assert "gpu1: serves, gate1: serves" in lines[1]
