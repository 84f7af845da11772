"""What is locked and older than a year has its reason in checks/kept.json; its age is known without asking anybody."""

import datetime
import json

import pytest

from checks import ages
from checks.ages import Age

DAY = datetime.date(2026, 11, 1)
ENTRY = {"packages": {"a": "1"}, "reason": "b wants it", "out_of_reach": "no request reaches it"}


def age(name="a", version="1", released="2024-01-01", newest="2"):
    return Age("x.lock", name, version, datetime.date.fromisoformat(released), newest)


@pytest.fixture(scope="module")
def table():
    return json.loads(ages.AGES.read_text())


def test_everything_locked_has_its_age(table):
    for lock, text in ages.locks().items():
        assert {f"{name}=={version}" for name, version in ages.pins(text)} == set(
            table["locks"][lock]
        ), f"{lock}: run scripts/lock"


def test_what_is_older_than_a_year_is_on_the_list(table):
    found = list(
        ages.faults(ages.ages(table), datetime.date.fromisoformat(table["day"]), json.loads(ages.KEPT.read_text()))
    )
    assert found == [], "\n".join(found)


def test_the_day_is_the_one_up_to_which_scripts_lock_looked(table):
    assert f"until={table['day']} " in (ages.ROOT / "scripts/lock").read_text()


@pytest.mark.parametrize(
    ("rows", "kept", "said"),
    [
        ([age()], [], "a 1 in x.lock (of 2024-01-01; the newest is 2) is older than a year: raise it"),
        ([age()], [ENTRY | {"packages": {"a": "0"}}], "a 0 in checks/kept.json is locked nowhere"),
        ([age()], [ENTRY | {"reason": ""}], "lacks one of reason, out_of_reach"),
        ([age()], [{"packages": {"a": "1"}, "reason": "b"}], "lacks one of reason, out_of_reach"),
        ([age()], [ENTRY | {"is_newest": True}], "has a newer release"),
    ],
)
def test_what_is_wrong_is_said(rows, kept, said):
    assert any(said in fault for fault in ages.faults(rows, DAY, kept))


@pytest.mark.parametrize(
    ("row", "kept"),
    [(age(), [ENTRY]), (age(released="2025-11-02"), []), (age(newest="1"), [ENTRY | {"is_newest": True}])],
)
def test_what_is_listed_or_younger_is_well(row, kept):
    assert list(ages.faults([row], DAY, kept)) == []


def test_ages_are_read_from_what_uv_writes():
    pylock = """[[packages]]
name = "a"
version = "1"
marker = "python_full_version < '3.12'"
sdist = { url = "u", upload-time = 2024-05-02T10:00:00Z, hashes = {} }
wheels = [{ url = "v", upload-time = 2024-05-01T10:00:00Z }]

[[packages]]
name = "b"
version = "2"
wheels = [{ url = "v", upload-time = 2026-05-01T10:00:00Z }]
"""
    assert dict(ages.dated(pylock)) == {("a", "1"): "2024-05-01", ("b", "2"): "2026-05-01"}
