"""What the playbooks decide, without a host: lists of servers, locks, trees, rollbacks."""

import dataclasses
import json

import pytest

from tests.ansible import fleet_simulation, variables
from tests.ansible.plugins import load

compose = load("filter_plugins/compose.py")
failures = load("filter_plugins/failures.py")
hosts = load("filter_plugins/hosts.py")
keys = load("filter_plugins/keys.py")
rollout = load("filter_plugins/rollout.py")
settings = load("filter_plugins/settings.py")
weights = load("filter_plugins/weights.py")
lock = load("library/rollout_lock.py")
summary = load("callback_plugins/rollout_summary.py")


@pytest.mark.parametrize(
    ("version", "serial", "word"),
    [
        (1.1, "1", "put it in quotes"),
        ("1.10", 0, "lingbi_serial: 0"),
        ("1.10", "0%", "lingbi_serial"),
        ("1.0", "x", "10%"),
        ("0.1.O", "1", "lingbi_version: '0.1.O' is no version; give one as in 1.2.0"),
        ("latest", "1", "is no version"),
    ],
)
def test_values_that_no_type_tells_from_right_ones_are_refused(version, serial, word):
    (fault,) = settings.value_faults({"version": version, "serial": serial, "image_digests": {}})
    assert word in fault


MIRRORED = {"registry-mirrors": ["https://mirror.example"], "insecure-registries": ["10.0.0.5:5000", "10.1.0.0/16"]}
REPOSITORIES = {"lingbi_docker_repository": "https://mirror.example/docker-ce/linux", "lingbi_nvidia_repository": ""}


def test_mirrors_that_hosts_can_use_are_accepted():
    assert settings.mirror_faults({}, REPOSITORIES) == [] == settings.mirror_faults(MIRRORED, {})
    assert settings.mirror_faults({"registry-mirrors": ["http://10.0.0.5:5000/"]}, {}) == []


@pytest.mark.parametrize(
    ("daemon", "repositories", "said"),
    [
        ({"registry-mirrors": ["mirror.example"]}, {}, "the registry mirror mirror.example is no address"),
        ({"registry-mirrors": ["https://mirror.example/hub"]}, {}, "give https://HOST, without path"),
        ({"registry-mirrors": ["https://me:word@mirror.example"]}, {}, "path and login"),
        ({"insecure-registries": ["http://10.0.0.5:5000"]}, {}, "leave http:// out"),
        ({}, {"lingbi_docker_repository": "mirror.example/docker-ce"}, "lingbi_docker_repository: mirror.example"),
        ({}, {"lingbi_nvidia_repository": "ftp://mirror.example/nvidia"}, "lingbi_nvidia_repository"),
    ],
)
def test_mirrors_that_no_host_could_use_are_refused_by_name(daemon, repositories, said):
    (fault,) = settings.mirror_faults(daemon, repositories)
    assert said in fault


@pytest.mark.parametrize("serial", [1, "3", "10%", "100%"])
def test_numbers_and_parts_of_hosts_are_right(serial):
    assert settings.value_faults({"version": "1.10", "serial": serial, "image_digests": {}}) == []


DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize(
    ("digests", "word"),
    [
        ({"1.0.0": {"servre": DIGEST}}, "1.0.0: servre"),
        ({"1.0.0": {"ui": DIGEST[:-1]}}, "64 digits"),
        ({"1.0.0": DIGEST}, "give server, ui or gateway"),
        ({1.1: {"ui": DIGEST}}, "put it in quotes"),
    ],
)
def test_digests_that_would_hold_no_image_to_anything_are_refused(digests, word):
    (fault,) = settings.digest_faults(digests)
    assert word in fault and fault.startswith("lingbi_image_digests: ")


def test_digests_of_images_become_references_in_their_registry():
    assert settings.digest_faults({"1.0.0": {"server": DIGEST, "ui": DIGEST, "gateway": DIGEST}}) == []
    assert compose.image_references({"ui": DIGEST}, "lab:5000/x/") == {"ui": f"lab:5000/x/ui@{DIGEST}"}


@pytest.mark.parametrize(
    ("variable", "given", "words"),
    [
        ("lingbi_settings", {"LINGBI_MAX_PICTURE": 4}, ["no such setting; did you mean LINGBI_MAX_PICTURES?"]),
        (
            "lingbi_settings",
            {"LINGBI_PORT": 1, "LINGBI_MODEL": "x"},
            ["LINGBI_MODEL: the playbooks", "LINGBI_PORT: the"],
        ),
        ("lingbi_settings", {"LINGBI_GATEWAY_KEY_RATE": 1}, ["no such setting"]),
        ("lingbi_gateway_settings", {"LINGBI_GATEWAY_KEY_RAT": 1}, ["did you mean LINGBI_GATEWAY_KEY_RATE?"]),
        ("lingbi_gateway_settings", {"LINGBI_GATEWAY_SERVERS": "a:1"}, ["the playbooks set it"]),
        ("lingbi_settings", {"LINGBI_MAX_PICTURES": 4}, []),
        ("lingbi_gateway_settings", {"LINGBI_UI_KEEP_FILES_H": 1, "LINGBI_GATEWAY_ALLOW": "10.0.0.0/8"}, []),
    ],
)
def test_settings_that_are_misspelt_or_the_playbooks_own_are_refused_by_name(variable, given, words):
    faults = settings.setting_faults(given, variable, variables.ROOT)
    assert len(faults) == len(words) and all(word in fault for word, fault in zip(words, faults, strict=True)), faults


def test_the_settings_that_are_known_are_those_of_the_programs():
    from lingbi.settings import Settings as Server
    from lingbi_gateway.settings import Settings as Gateway
    from lingbi_ui.settings import Settings as Page

    server = {f"LINGBI_{name.upper()}" for name in Server.model_fields}
    others = {f"LINGBI_GATEWAY_{item.name.upper()}" for item in dataclasses.fields(Gateway)}
    others |= {f"LINGBI_UI_{name.upper()}" for name in Page.model_fields}
    for variable, declared in (("lingbi_settings", server), ("lingbi_gateway_settings", others)):
        parts = settings.SETTINGS_OF[variable][0]
        assert {setting.name for setting in settings.schema.declared(*parts)} == declared


@pytest.mark.parametrize(
    ("listens", "tls", "url", "options"),
    [
        ({"bind": "0.0.0.0"}, ("", ""), "http://10.0.0.9:6006", []),
        ({"bind": "10.1.0.9"}, ("", "name-without-tls"), "http://10.1.0.9:6006", []),
        ({"bind": "::", "address": "fd00::9"}, ("/tls", ""), "https://[fd00::9]:6006", []),
        ({"bind": "0.0.0.0"}, ("/tls", "lab.example"), "https://lab.example:6006", ["--add-host=lab.example:10.0.0.9"]),
    ],
)
def test_a_gateway_is_asked_where_it_listens_and_by_its_certificates_name(listens, tls, url, options):
    place = hosts.gateway_place({"address": "10.0.0.9", "port": 6006} | listens, *tls)
    assert place == {"url": url, "options": options}


def test_check_mode_makes_no_key(tmp_path):
    missing, there = str(tmp_path / "missing"), str(tmp_path)
    assert keys.key_place(missing, True) == "/dev/null" and keys.key_place(missing, False) == missing
    assert keys.key_place(there, True) == there


def test_a_misspelt_variable_is_named_with_the_right_one():
    known = ["lingbi_version", "lingbi_serial"]
    assert settings.unknown_variables(["lingbi_seriall", "lingbi_run_port", "ansible_host", *known], known) == [
        "lingbi_seriall: there is no such variable; did you mean lingbi_serial?"
    ]


OWNER = {"who": "ann", "controller": "desk", "boot": "1", "process": 7, "started": "99"}
HELD = OWNER | {"since": "then", "until": 100}


@pytest.mark.parametrize(
    ("owner", "gone", "break_lock", "now", "may"),
    [
        (OWNER, None, False, 50, True),
        (OWNER | {"process": 8}, None, False, 50, False),
        (OWNER | {"started": "100"}, None, False, 50, False),
        (OWNER | {"process": 8}, HELD, False, 50, True),
        (OWNER | {"process": 8}, HELD | {"process": 9}, False, 50, False),
        (OWNER | {"controller": "other"}, None, False, 101, True),
        (OWNER | {"controller": "other"}, None, True, 50, True),
    ],
)
def test_a_lock_is_taken_only_from_those_who_are_gone(owner, gone, break_lock, now, may):
    assert lock.may_take(HELD, {"owner": owner, "gone": gone, "break_lock": break_lock}, now) == may
    assert lock.may_take({}, {"owner": owner, "gone": None, "break_lock": False}, now)


def entry(version, at, result="rolled", is_rollback=False, unit="server", **images):
    kept = {"unit": unit, "version": version, "at": at, "result": result, "is_rollback": is_rollback, "images": images}
    return json.dumps(kept) + "\n"


def test_a_rollback_goes_to_what_ran_before_by_its_digests():
    server = entry("1", "a", server="s1") + entry("2", "c", server="s2")
    gateway = entry("1", "b", unit="gateway", gateway="g1") + entry("2", "d", unit="gateway", gateway="g2")
    assert rollout.rollback_plan([server, gateway], "") == {"version": "1", "images": {"server": "s1", "gateway": "g1"}}
    assert rollout.rollback_plan([server, gateway], "2")["images"] == {"server": "s2", "gateway": "g2"}
    with pytest.raises(Exception, match="never ran here"):
        rollout.rollback_plan([server], "3")
    with pytest.raises(Exception, match="no version before"):
        rollout.rollback_plan([entry("1", "a", server="s1")], "")


def test_a_second_rollback_goes_one_version_further_and_not_forward_to_the_bad_one():
    record = entry("1", "a", server="s1") + entry("2", "b", server="s2") + entry("3", "c", server="s3")
    record += entry("2", "d", is_rollback=True, server="s2")
    assert rollout.rollback_plan([record], "")["version"] == "1"
    assert rollout.rollback_plan([record], "3")["version"] == "3"
    again = record + entry("3", "e", server="s3")  # deployed once more
    assert rollout.rollback_plan([again], "")["version"] == "2"
    last = record + entry("1", "e", is_rollback=True, server="s1")
    with pytest.raises(Exception, match="no version before"):
        rollout.rollback_plan([last], "")


RAN = entry("1", "a") + entry("2", "b")  # of every host below


@pytest.mark.parametrize(
    ("first", "second", "version"),
    [
        (entry("3", "c"), entry("3", "d", "returned"), "2"),  # a deploy that failed at the second host
        (entry("3", "c"), "", "2"),  # one that was killed before it
        (entry("3", "c"), entry("4", "d", "returned"), "2"),  # and another version after that, which failed at once
        (entry("1", "c", is_rollback=True), "", "1"),  # a rollback that was killed: go on
        (entry("1", "c", is_rollback=True), entry("1", "d", "returned", True), "1"),
        (entry("1", "c", "left as it was", True), "", "1"),  # one that could not begin: try again
        (entry("1", "c", is_rollback=True), entry("1", "d", is_rollback=True), None),  # one that ended
        (entry("2", "c", "returned", True), "", "1"),  # `site` with settings that do not work
        (entry("3", "c") + entry("2", "e", is_rollback=True), entry("3", "d", "returned"), "1"),  # `site` took it back
    ],
)
def test_a_rollback_after_what_did_not_end_takes_back_what_was_rolled_and_no_more(first, second, version):
    if version is None:
        with pytest.raises(Exception, match="no version before"):
            rollout.rollback_plan([RAN + first, RAN + second], "")
    else:
        assert rollout.rollback_plan([RAN + first, RAN + second], "")["version"] == version


@pytest.mark.parametrize("result", ["returned", "left as it was", "lost", "stopped"])
def test_a_rollback_is_refused_where_nothing_is_left_of_a_failed_deploy(result):
    """It would go to the version before the one that serves well everywhere."""
    records = [RAN + entry("3", "c", result), RAN]
    with pytest.raises(Exception, match="nothing is left of the rollout of 3, which failed: everything runs 2"):
        rollout.rollback_plan(records, "")
    assert rollout.rollback_plan(records, "1")["version"] == "1"


@pytest.mark.parametrize("fan_out", [1, 2, 3])
def test_weights_reach_every_host_once_from_one_that_has_them(fan_out):
    places = [weights.spread_parent(place, fan_out) for place in range(200)]
    for place, found in enumerate(places[1:], 1):
        assert found["parent"] < place and places[found["parent"]]["round"] < found["round"]
    served = [(found["round"], found["parent"]) for found in places[1:]]
    assert max(served.count(item) for item in served) <= fan_out
    assert max(found["round"] for found in places) == fleet_simulation.rounds_until(200, fan_out)
    assert weights.spread_rounds(200, fan_out) == fleet_simulation.rounds_until(200, fan_out)


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (3, "3"), ("a b$c", "'a b$c'"), ("http://h:1/x", "http://h:1/x"), ("", "")]
)
def test_values_stand_in_an_env_file_as_they_are(value, text):
    assert compose.env_value(value) == text


def test_a_value_that_an_env_file_cannot_hold_is_refused():
    with pytest.raises(Exception, match="quote or a line break"):
        compose.env_value("it's $5")


@pytest.mark.parametrize(
    ("result", "fault", "words"),
    [
        ({"msg": "no such folder"}, "no such folder", []),
        ({"msg": "it failed", "log": ["last", "lines"]}, "it failed", ["last", "lines"]),
        ({"msg": "rc 1", "stderr_lines": ["noise", "FAIL  ready"]}, "FAIL  ready", ["noise", "FAIL  ready"]),
        ({"results": [{"msg": "well"}, {"failed": True, "msg": "second", "log": ["x"]}]}, "second", ["x"]),
        ({}, "a task failed", []),
    ],
)
def test_a_failed_task_is_told_in_a_sentence_and_by_its_last_lines(result, fault, words):
    assert failures.fault(result) == fault and failures.last_words(result) == words


def test_the_first_line_of_a_text_is_the_first_that_says_anything():
    assert failures.first_line("\n  \n one \ntwo") == "one" and failures.first_line("") == ""


def test_the_simulated_fleet_adds_up():
    """The arithmetic of the design: batches cover every host once, and larger ones end sooner."""
    assert [sum(fleet_simulation.batches(200, serial)) for serial in ("1", "5%", "10%", "7")] == [200] * 4
    assert fleet_simulation.batches(200, "10%")[:2] == [1, 20]
    still = fleet_simulation.Times(spread=0)
    total, away = fleet_simulation.roll(200, "10%", still, fleet_simulation.random.Random(1))
    one_turn = still.drain + still.stop + still.start + still.smoke + still.ours
    assert total == pytest.approx(len(fleet_simulation.batches(200, "10%")) * one_turn) and away == pytest.approx(
        one_turn
    )


def test_the_summary_is_a_table_of_equal_columns():
    lines = summary.table([{"host": "gpu1", "unit": "server", "result": "rolled"}, {"host": "g", "why": "x"}])[2:]
    assert lines[0].index("unit") == lines[1].index("server") and lines[2].startswith("g ")


@pytest.mark.parametrize(("results", "is_told"), [(["rolled", "rolled"], False), (["rolled", "returned"], True)])
def test_what_to_do_next_is_told_where_not_everything_was_rolled(results, is_told):
    assert ("scripts/lab status" in " ".join(summary.advice([{"result": result} for result in results]))) == is_told
